// The pictures of a map: all of them small, on sheets, and the larger ones of those that are near.
import { pictureUrl } from "./api.js";

const MOST_LARGE = 100;

/** @typedef {{ image: HTMLImageElement, cut: number, cutX: number, cutY: number }} Large A picture, and its square in the middle. */

export class MapPictures {
  /** @type {Map<number, Large>} Those that were wanted last are the last ones. */
  large = new Map();

  /**
   * @param {FolderOnMap} folder
   * @param {() => void} arrived called when a picture or a sheet is there
   */
  constructor(folder, arrived) {
    this.folder = folder;
    this.arrived = arrived;
    this.sheets = Array.from({ length: folder.sheets.count }, (_, number) => {
      const image = new Image();
      image.onload = arrived;
      image.src = `/api/folders/${folder.id}/sheets/${number}.jpg`;
      return image;
    });
  }

  /**
   * A sheet, once it is there.
   *
   * @param {number} number
   */
  sheet(number) {
    const image = this.sheets[number];
    return image.complete && image.naturalWidth ? image : null;
  }

  /**
   * The larger pictures of the first of these that are there. The others are asked for.
   *
   * @param {number[]} indices those that matter most come first
   * @returns {Map<number, Large>}
   */
  near(indices) {
    const wanted = indices.slice(0, MOST_LARGE);
    for (const index of wanted) {
      const large = this.large.get(index) ?? this.ask(index);
      this.large.delete(index);
      this.large.set(index, large);
    }
    for (const index of this.large.keys()) {
      if (this.large.size <= MOST_LARGE) break;
      this.large.delete(index);
    }
    return new Map(wanted.flatMap((index) => {
      const large = this.large.get(index);
      return large?.cut ? [[index, large]] : [];
    }));
  }

  /** @param {number} index */
  ask(index) {
    const image = new Image();
    /** @type {Large} */
    const large = { image, cut: 0, cutX: 0, cutY: 0 };
    image.onload = () => {
      large.cut = Math.min(image.naturalWidth, image.naturalHeight);
      large.cutX = (image.naturalWidth - large.cut) / 2;
      large.cutY = (image.naturalHeight - large.cut) / 2;
      this.arrived();
    };
    image.src = pictureUrl(this.folder.items[index].picture, 320);
    return large;
  }
}
