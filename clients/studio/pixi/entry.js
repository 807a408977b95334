// What the map takes of PixiJS. `unsafe-eval` is PixiJS without `new Function`, which the Content-Security-Policy forbids.
import "pixi.js/unsafe-eval";
export { Buffer, BufferUsage, CanvasSource, Color, Container, Geometry, GlProgram, ImageSource, Mesh, Rectangle, Shader, Sprite, Texture, Ticker, UniformGroup, WebGLRenderer } from "pixi.js";
