// Before anything is drawn: the colours that the person chose, or those of the system.
"use strict";
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("selfseg-theme");
  } catch {
    // A browser may keep nothing; then the system's colours it is.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
