// Types of pixi.js here, for the checks of the page.
export * from "pixi.js";
