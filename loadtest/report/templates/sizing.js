"use strict";
// Cost and servers for the reader's own price and peak. The figures of the run stand without it.
(() => {
  const table = document.getElementById("sizing");
  if (!table) return;
  const [price, peak] = ["price", "peak"].map((id) => document.getElementById(id));
  const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
  const money = (amount) => `${number.format(amount)} ${table.dataset.currency}`;
  const positive = (input) => (Number.isFinite(input.valueAsNumber) && input.valueAsNumber > 0 ? input.valueAsNumber : null);
  const measured = new Map([...table.querySelectorAll(".cost-cell")].map((cell) => [cell, [...cell.childNodes]]));
  const show = () => {
    const cost = positive(price);
    const rate = positive(peak);
    for (const cell of table.querySelectorAll(".what-if-only")) cell.hidden = !rate;
    for (const row of table.querySelectorAll("[data-images]")) {
      const images = Number(row.dataset.images);
      const cell = row.querySelector(".cost-cell");
      const asSaved = price.value === price.defaultValue;
      cell.replaceChildren(...(asSaved ? measured.get(cell) : [cost ? money((cost / (images * 3600)) * 1e6) : "–"]));
      const servers = rate ? Math.ceil(Number((rate / images).toFixed(9))) + 1 : null;
      row.querySelector("[data-replicas]").textContent = servers ? number.format(servers) : "";
      row.querySelector("[data-bill]").textContent = servers && cost ? money(servers * cost) : "–";
    }
  };
  for (const input of [price, peak]) input.addEventListener("input", show);
  show();
})();
