"use strict";
const tiles = [...document.querySelectorAll(".tile")];
const form = document.querySelector(".filters");
const dialog = document.querySelector("dialog");

const visible = () => tiles.filter((tile) => !tile.hidden);

function filter() {
  const wanted = [...new FormData(form)].filter(([, value]) => value);
  for (const tile of tiles) {
    tile.hidden = !wanted.every(([name, value]) => tile.dataset[name] === value);
  }
  form.querySelector(".shown").textContent = `${visible().length} of ${tiles.length} shown`;
}

let current;

function show(tile) {
  current = tile;
  const content = tile.querySelector("template").content.cloneNode(true);
  dialog.querySelector(".content").replaceChildren(content);
  const shown = visible();
  dialog.querySelector(".position").textContent = `${shown.indexOf(tile) + 1} of ${shown.length}`;
  if (!dialog.open) dialog.showModal();
}

function step(by) {
  const shown = visible();
  show(shown[(shown.indexOf(current) + by + shown.length) % shown.length]);
}

if (form) {
  form.hidden = false;
  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  filter();
  for (const tile of tiles) {
    tile.querySelector("button").addEventListener("click", () => show(tile));
  }
  dialog.querySelector(".previous").addEventListener("click", () => step(-1));
  dialog.querySelector(".next").addEventListener("click", () => step(1));
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => current.querySelector("button").focus());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
}
