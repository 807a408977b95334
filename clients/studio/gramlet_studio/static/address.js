// The address of the page, which names the part and the run that it shows.
let show = () => {};

/**
 * Shows what the address names by this function: now, and whenever the address changes.
 *
 * @param {() => void} shower
 */
export function showBy(shower) {
  show = shower;
  addEventListener("popstate", show);
  show();
}

/**
 * Goes to an address of the studio without loading the page again; quietly: the part has shown it already.
 *
 * @param {string} path
 */
export function go(path, { quiet = false } = {}) {
  history.pushState(null, "", path);
  return quiet ? undefined : show();
}
