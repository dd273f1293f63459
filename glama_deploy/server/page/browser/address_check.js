/** Tell a person who opened the page as a file what to do. Browsers do not start the page's modules from files. */
if (location.protocol === "file:") {
  addEventListener("DOMContentLoaded", () => {
    const alert = document.getElementById("alert");
    alert.querySelector("p").textContent =
      "This page needs a web server. In the folder of index.html run `python -m http.server`, and open http://localhost:8000.";
    for (const button of alert.querySelectorAll("button")) button.hidden = true;
    alert.hidden = false;
  });
}
