// Before the first paint: the theme that the user chose last. Without a choice, the system's.
const chosen = localStorage.getItem("theme");
if (chosen) document.documentElement.dataset.theme = chosen;
