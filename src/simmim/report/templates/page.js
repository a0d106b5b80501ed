(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const toggle = document.getElementById("theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { toggle.textContent = dark() ? "Light" : "Dark"; };
  toggle.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
  const slider = document.getElementById("step");
  if (!slider) return;
  const steps = slider.dataset.steps.split(" ");
  const show = () => {
    const chosen = Number(slider.value);
    for (const column of document.querySelectorAll(".predicted"))
      [...column.querySelectorAll("img")].forEach((image, number) => image.classList.toggle("shown", number === chosen));
    document.getElementById("shown-step").textContent = "step " + Number(steps[chosen]).toLocaleString("en");
    slider.setAttribute("aria-valuetext", "step " + steps[chosen]);
  };
  slider.addEventListener("input", show);
  slider.value = steps.length - 1;
  show();
})();
