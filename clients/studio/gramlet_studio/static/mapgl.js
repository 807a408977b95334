// The map by WebGL, through PixiJS: one mesh for each sheet with an instance for each picture. To move the map is to change
// a few numbers, whatever the count.
import { h, penOf } from "./dom.js";

/** @typedef {import("./mapview.js").MapView} MapView */
/** @typedef {import("./mapview.js").Frame} Frame */
/** @typedef {typeof import("./pixi.js")} Pixi */
/** @typedef {import("./pixi.js").Buffer} Buffer */
/** @typedef {{ points: Buffer, marks: Buffer, geometry: import("./pixi.js").Geometry, shader: import("./pixi.js").Shader, places: number[], isReady: boolean }} Sheet */

const FLOATS = 5; // of an instance: where it glides from, where it goes, its cell of the sheet
const MOST_WHOLE = 16; // sheets; with more of them each is kept at half its size, a fourth of the memory

const VERTEX = `#version 300 es
in vec2 aCorner, aFrom, aTo;
in float aCell;
in vec4 aMark;
uniform vec2 uScreen, uMiddle;
uniform float uUnit, uSide, uRim, uGlide, uColumns;
uniform vec3 uPlain;
out vec2 vAt;
flat out vec2 vCell;
flat out vec3 vColor;
void main() {
  float strength = floor(aMark.a * 255. + .5);
  vec2 corner = floor(uMiddle + mix(aFrom, aTo, uGlide) * uUnit - uSide * .5 + .5);
  vec2 pixel = corner + uSide * .5 + aCorner * (uSide * .5 + uRim * strength);
  gl_Position = vec4((pixel / uScreen * 2. - 1.) * vec2(1., -1.), 0., 1.);
  vAt = aCorner * (.5 + uRim * strength / uSide) + .5;
  vCell = vec2(mod(aCell, uColumns), floor(aCell / uColumns));
  vColor = strength > 0. ? aMark.rgb : uPlain;
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec2 vAt;
flat in vec2 vCell;
flat in vec3 vColor;
uniform sampler2D uSheet;
uniform vec2 uCells; // rows and columns of the sheet, as its picture has them
uniform float uReady, uSide, uTile, uDots;
uniform vec3 uPlain;
out vec4 finalColor;
void main() {
  float edge = .5 / min(uSide, uTile); // half of what is mixed: not of the picture beside
  vec3 picture = mix(uPlain, texture(uSheet, (vCell + clamp(vAt, edge, 1. - edge)) / uCells).rgb, uReady);
  bool isRim = any(lessThan(vAt, vec2(0.))) || any(greaterThan(vAt, vec2(1.)));
  finalColor = vec4(isRim || uDots > 0. ? vColor : picture, 1.);
}`;

/** @implements {Painter} */
export class WebGLPainter {
  name = "webgl";
  placed = -1;
  colored = -1;
  /** @type {Map<number, Record<"around" | "picture", import("./pixi.js").Sprite>>} The larger pictures, by index, and what is seen around them. */
  near = new Map();

  /**
   * @param {MapView} view
   * @param {() => void} lost called when the graphics card drops the map
   * @param {() => void} restored called when it can be drawn again
   * @throws without WebGL 2, and where the processor would stand in for the graphics card: a 2D canvas is faster then
   */
  static async make(view, lost, restored) {
    const canvas = h("canvas"), context = canvas.getContext("webgl2", { alpha: true, stencil: true, antialias: false, failIfMajorPerformanceCaveat: true });
    if (!context || isSoftware(context)) throw new Error("no WebGL 2 by a graphics card");
    const pixi = await import("./pixi.js"), renderer = new pixi.WebGLRenderer();
    await renderer.init({ canvas, context, backgroundAlpha: 0, skipExtensionImports: true });
    pixi.Ticker.system.stop(); // the view says when to draw
    return new WebGLPainter(pixi, renderer, canvas, view, { webglcontextlost: lost, webglcontextrestored: restored });
  }

  /**
   * @param {Pixi} pixi
   * @param {import("./pixi.js").WebGLRenderer} renderer
   * @param {HTMLCanvasElement} canvas
   * @param {MapView} view
   * @param {Record<string, () => void>} listeners of the canvas
   */
  constructor(pixi, renderer, canvas, view, listeners) {
    this.pixi = pixi;
    this.renderer = renderer;
    this.canvas = canvas;
    this.listeners = listeners;
    for (const [name, listener] of Object.entries(listeners)) canvas.addEventListener(name, listener);
    this.stage = new pixi.Container();
    this.small = this.stage.addChild(new pixi.Container());
    this.above = this.stage.addChild(new pixi.Container({ sortableChildren: true }));
    const { count, columns, tile } = view.folder.sheets, size = /** @type {const} */ ("vec2<f32>"), number = (/** @type {number} */ value) => ({ value, type: /** @type {const} */ ("f32") });
    this.isHalved = count > MOST_WHOLE;
    this.scene = new pixi.UniformGroup({
      uScreen: { value: new Float32Array(2), type: size }, uMiddle: { value: new Float32Array(2), type: size }, uPlain: { value: new Float32Array(3), type: "vec3<f32>" },
      uUnit: number(1), uSide: number(1), uRim: number(1), uGlide: number(1), uDots: number(0), uColumns: number(columns), uTile: number(this.isHalved ? tile / 2 : tile),
    });
    this.program = new pixi.GlProgram({ vertex: VERTEX, fragment: FRAGMENT, name: "map" });
    this.corners = new pixi.Buffer({ data: new Float32Array([-1, -1, 1, -1, 1, 1, -1, 1]), usage: pixi.BufferUsage.VERTEX });
    this.order = new pixi.Buffer({ data: new Uint32Array([0, 1, 2, 0, 2, 3]), usage: pixi.BufferUsage.INDEX });
    this.sheets = Array.from({ length: count }, () => this.sheet(view.folder.sheets.perSheet));
  }

  /**
   * A mesh that may have so many instances, and has none.
   *
   * @param {number} most
   * @returns {Sheet}
   */
  sheet(most) {
    const { pixi, corners } = this, usage = pixi.BufferUsage.VERTEX | pixi.BufferUsage.COPY_DST;
    const points = new pixi.Buffer({ data: new Float32Array(most * FLOATS), usage }), marks = new pixi.Buffer({ data: new Uint8Array(most * 4), usage });
    const geometry = new pixi.Geometry({
      attributes: {
        aCorner: { buffer: corners, format: "float32x2" },
        aFrom: { buffer: points, format: "float32x2", stride: FLOATS * 4, offset: 0, instance: true },
        aTo: { buffer: points, format: "float32x2", stride: FLOATS * 4, offset: 8, instance: true },
        aCell: { buffer: points, format: "float32", stride: FLOATS * 4, offset: 16, instance: true },
        aMark: { buffer: marks, format: "unorm8x4", stride: 4, offset: 0, instance: true },
      },
      indexBuffer: this.order,
    });
    const own = new pixi.UniformGroup({ uReady: { value: 0, type: "f32" }, uCells: { value: new Float32Array([1, 1]), type: "vec2<f32>" } });
    const shader = new pixi.Shader({ glProgram: this.program, resources: { scene: this.scene, own, uSheet: pixi.Texture.WHITE.source } });
    this.small.addChild(new pixi.Mesh({ geometry, shader }));
    return { points, marks, geometry, shader, places: [], isReady: false };
  }

  close() {
    for (const [name, listener] of Object.entries(this.listeners)) this.canvas.removeEventListener(name, listener);
    this.renderer.destroy();
    this.canvas.remove();
  }

  /**
   * @param {MapView} view
   * @param {Frame} frame
   */
  paint(view, frame) {
    const { width, height, side, rim, unit, left, top, glide } = frame, { uniforms } = this.scene;
    if (this.canvas.width !== width || this.canvas.height !== height) this.renderer.resize(width, height, 1);
    if (this.placed !== view.placed) this.place(view);
    if (this.colored !== view.colored) this.color(view);
    this.upload(view);
    uniforms.uScreen.set([width, height]);
    uniforms.uMiddle.set([left, top]);
    Object.assign(uniforms, { uUnit: unit, uSide: side, uRim: rim, uGlide: glide, uDots: Number(frame.dots) });
    this.raise(view, frame);
    this.renderer.render(this.stage);
  }

  /**
   * Writes where each picture is, and its cell.
   *
   * @param {MapView} view
   */
  place(view) {
    const { perSheet } = view.folder.sheets, from = view.from ?? view;
    for (const sheet of this.sheets) sheet.places = [];
    view.shown.forEach((index, place) => {
      const { points, places } = this.sheets[Math.floor(index / perSheet)];
      /** @type {Float32Array} */ (points.data).set([from.x[place], from.y[place], view.x[place], view.y[place], index % perSheet], places.length * FLOATS);
      places.push(place);
    });
    this.small.children.forEach((mesh, number) => {
      const { points, geometry, places } = this.sheets[number];
      mesh.visible = places.length > 0;
      geometry.instanceCount = places.length;
      points.update();
    });
    this.placed = view.placed;
    this.colored = -1;
  }

  /**
   * Writes the color around each picture.
   *
   * @param {MapView} view
   */
  color(view) {
    /** @type {Map<string, number[]>} */
    const parsed = new Map();
    const rgb = (/** @type {string} */ color) => {
      const known = parsed.get(color) ?? new this.pixi.Color(color).toRgbArray();
      parsed.set(color, known);
      return known;
    };
    this.scene.uniforms.uPlain.set(rgb(view.ink.plain));
    for (const { marks, places } of this.sheets) {
      places.forEach((place, number) => {
        const { color, strength } = view.markOf(view.shown[place]);
        /** @type {Uint8Array} */ (marks.data).set([...rgb(color).map((share) => Math.round(share * 255)), strength], number * 4);
      });
      marks.update();
    }
    this.colored = view.colored;
  }

  /**
   * Hands the next sheet that has arrived to the graphics card: one a frame, because each takes some milliseconds.
   *
   * @param {MapView} view
   */
  upload(view) {
    const number = this.sheets.findIndex(({ isReady }, each) => !isReady && view.pictures.sheet(each));
    if (number < 0) return;
    const { tile } = view.folder.sheets, sheet = this.sheets[number], image = /** @type {HTMLImageElement} */ (view.pictures.sheet(number));
    sheet.isReady = true;
    Object.assign(sheet.shader.resources, { uSheet: this.mipmapped(this.isHalved ? halved(image) : image) });
    Object.assign(sheet.shader.resources.own.uniforms, { uReady: 1, uCells: new Float32Array([image.naturalWidth / tile, image.naturalHeight / tile]) });
    view.draw();
  }

  /**
   * A picture that is drawn at any size.
   *
   * @param {HTMLImageElement | HTMLCanvasElement} resource
   */
  mipmapped(resource) {
    const options = /** @type {const} */ ({ autoGenerateMipmaps: true, mipmapFilter: "linear", scaleMode: "linear", alphaMode: "no-premultiply-alpha" });
    return resource instanceof HTMLImageElement ? new this.pixi.ImageSource({ resource, ...options }) : new this.pixi.CanvasSource({ resource, ...options });
  }

  /**
   * Draws the larger pictures over the small ones.
   *
   * @param {MapView} view
   * @param {Frame} frame
   */
  raise(view, frame) {
    const { pixi } = this, larges = view.pictures.near(view.nearby(frame));
    for (const [index, { picture, around }] of this.near) {
      if (larges.has(index)) continue;
      around.destroy();
      picture.destroy({ texture: true, textureSource: true });
      this.near.delete(index);
    }
    for (const [index, { image, cut, cutX, cutY }] of larges) {
      let large = this.near.get(index);
      if (!large) {
        const texture = new pixi.Texture({ source: this.mipmapped(image), frame: new pixi.Rectangle(cutX, cutY, cut, cut) });
        large = { around: this.above.addChild(new pixi.Sprite(pixi.Texture.WHITE)), picture: this.above.addChild(new pixi.Sprite(texture)) };
        large.around.zIndex = large.picture.zIndex = index; // the order of the small ones
        this.near.set(index, large);
      }
      const [x, y] = view.cornerOf(index, frame), { color, strength } = view.markOf(index), edge = frame.rim * strength;
      large.around.tint = color;
      large.around.position.set(x - edge, y - edge);
      large.around.setSize(frame.side + 2 * edge);
      large.picture.position.set(x, y);
      large.picture.setSize(frame.side);
    }
  }
}

/**
 * Whether the processor draws. `failIfMajorPerformanceCaveat` should say so; Chromium without a screen ignores it.
 *
 * @param {WebGL2RenderingContext} context
 */
function isSoftware(context) {
  const info = context.getExtension("WEBGL_debug_renderer_info");
  return !!info && /swiftshader|llvmpipe|softpipe|software|basic render/i.test(context.getParameter(info.UNMASKED_RENDERER_WEBGL));
}

/** @param {HTMLImageElement} image */
function halved(image) {
  const canvas = h("canvas");
  canvas.width = image.naturalWidth / 2;
  canvas.height = image.naturalHeight / 2;
  const pen = penOf(canvas);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}
