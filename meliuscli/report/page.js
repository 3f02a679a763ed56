for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0], column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.value;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return down ? -order : order;
    });
    body.append(...rows);
  });
}
for (const mark of document.querySelectorAll(".mark")) {
  const tell = () => { mark.closest("figure").querySelector(".readout").textContent = mark.dataset.text; };
  for (const event of ["click", "focus", "mouseenter"]) mark.addEventListener(event, tell);
}
for (const wide of document.querySelectorAll(".wide")) {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.textContent = "Wider than the screen: scroll it sideways. \u2192";
  wide.before(hint);
  const look = () => { hint.hidden = wide.scrollWidth <= wide.clientWidth; };
  new ResizeObserver(look).observe(wide);
  look();
}
