// What the backend sends to the page, and what the parts of the page hand to each other. For `make lint` only.

/** A picture that the studio keeps, by its id. */
interface StoredPicture { id: string; name: string; width?: number; height?: number }
interface Sample { id: string; name: string; use: "content" | "style" }

/** A style of an order: `picture` and the regions are ids of pictures. */
interface OrderedStyle { picture: string; weight: number; content_region?: string | null; style_region?: string | null }
interface ChosenStyle extends OrderedStyle { name: string }
interface StylizeSettings {
  size?: number; iterations?: number; style_size?: number; preset?: string; colors?: string;
  content_weight?: number; style_weight?: number; total_variation_weight?: number; style_stages?: Record<string, number>;
}
type SettingName = keyof StylizeSettings;
interface StylizeOrder { content?: string; styles: OrderedStyle[]; settings: StylizeSettings; initial?: string | null }

/** Of the server, as `/api/status` has it. */
interface ServerStatus {
  model?: { backbone: string; device: string };
  stages?: { name: string; channels: number }[];
  stylize?: { presets: string[]; preset_settings: StylizeSettings[] };
}

interface RunInfo {
  run_id: string; kind: "stylize" | "sweep" | "train" | "embed"; state: string; hasEnded: boolean; created: number;
  settings: string; bytes: number; progress: { done: number; total: number; phase: string }; error?: { message: string };
}

/** What was understood of a folder. */
interface FolderSummary {
  id: string; name: string; pictures: number; unlabelled: number; sets: string[];
  classes: { name: string; count: number }[]; leftOut: { name: string; reason: string }[];
}
interface FolderItem { name: string; label: string; picture: string }
interface FolderOnMap extends FolderSummary { items: FolderItem[]; sheets: { tile: number; columns: number; perSheet: number; count: number } }

/** Draws the map on its canvas. */
interface Painter {
  name: string;
  canvas: HTMLCanvasElement;
  paint(view: import("./gramlet_studio/static/mapview.js").MapView, frame: import("./gramlet_studio/static/mapview.js").Frame): void;
  close(): void;
}

/** A class and its probability. */
type Opinion = [string, number];
type Point = [number, number];

interface Epoch { epoch: number; loss: number; validation_loss: number }
interface Head {
  name: string; version: number; classes: string[]; accuracy: number; run_id: string;
  outcome: { reports: { set: string; accuracy: number; pictures: number }[]; history?: Epoch[] };
  findings?: {
    suspects?: { name: string; label: string; suggestion: string; probability: number }[];
    duplicates?: { name: string; first: string; conflicting: boolean }[];
    skipped?: { name: string; reason: string }[];
  };
}
interface JudgedPicture { name: string; picture: string; label: string; predicted: string; probability: number }

/** What the page does at each event of a run, by the event's name. Events come as JSON. */
type Handlers = Record<string, (values: any) => unknown>;

/** A part of the page: shows itself in `main`; may return what ends it. */
interface Part { open(main: HTMLElement, run: string): (() => void) | void }

// --- h() ---

type TagOf<D extends string> = D extends `${infer T}.${string}` ? (T extends "" ? "div" : T) : D;
type ElementOf<D extends string> = TagOf<D> extends keyof HTMLElementTagNameMap ? HTMLElementTagNameMap[TagOf<D>] : HTMLElement;
type Child = Node | string | null | undefined | false;
type Children = Child | Child[];
/** An event of an element of this kind: its target is the element. */
type At<E> = Event & MouseEvent & KeyboardEvent & { target: E; currentTarget: E };
type Attributes<E> = {
  [name: `on${string}`]: ((event: At<E>) => unknown) | undefined | false;
} & Record<string, unknown>;
