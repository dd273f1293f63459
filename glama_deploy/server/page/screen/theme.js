/** Dark and light: as the system has it, until the person switches. */
const KEY = "glama-theme";

export function setUpTheme(app) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    document.documentElement.dataset.theme = localStorage.getItem(KEY) ?? (system.matches ? "dark" : "light");
  };
  system.addEventListener("change", apply);
  app.switchTheme = () => {
    localStorage.setItem(KEY, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  };
  apply();
}
