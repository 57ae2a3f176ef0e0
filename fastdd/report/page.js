"use strict";
const dialog = document.querySelector("dialog");
const buttons = [...document.querySelectorAll(".classes button")];
let at = 0;
function show(number) {
  at = (number + buttons.length) % buttons.length;
  const image = buttons[at].firstElementChild, large = dialog.querySelector(".large");
  large.src = image.src;
  large.alt = image.alt;
  document.getElementById("shown").textContent = image.alt;
  const real = [...buttons[at].closest(".row").querySelectorAll(".real img")];
  for (const part of dialog.querySelectorAll(".beside")) part.hidden = !real.length;
  dialog.querySelector(".tiles").replaceChildren(...real.map((each) => each.cloneNode()));
  if (!dialog.open) dialog.showModal();
}
buttons.forEach((button, number) => button.addEventListener("click", () => show(number)));
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) show(at + step);
});
dialog.addEventListener("close", () => buttons[at].focus());
