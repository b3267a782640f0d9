"use strict";
// Shows where a figure comes from when the pointer rests on it and when it gets the keyboard's focus. A tap and Enter need no
// script. Of each table or list one figure is in the tab order; the arrow keys go to the others.
(() => {
  const REST_MS = 250;
  const figure = (event) => (event.target instanceof Element ? event.target.closest(".told") : null);
  const popover = (button) => document.getElementById(button.getAttribute("popovertarget"));
  const shown = () => document.querySelector(".origin:popover-open");
  let timer = 0;
  const later = (work) => {
    clearTimeout(timer);
    timer = setTimeout(work, REST_MS);
  };
  const hide = () => shown()?.hidePopover();
  const show = (button) => {
    clearTimeout(timer);
    hide(); // figures of one origin share a popover, which has to move
    popover(button).showPopover({ source: button });
  };

  document.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "mouse") return;
    const button = figure(event);
    if (button) later(() => show(button));
    else if (event.target.closest?.(".origin")) clearTimeout(timer); // to read and to copy
    else if (shown()) later(hide);
  });
  document.addEventListener("focusin", (event) => {
    const button = figure(event);
    if (button?.matches(":focus-visible")) show(button);
  });
  document.addEventListener("focusout", (event) => {
    if (figure(event) && event.relatedTarget) hide(); // a click into the popover leaves it open
  });

  const groups = new Map();
  for (const button of document.querySelectorAll(".told")) {
    const group = button.closest("table, dl, ul, section");
    groups.set(group, [...(groups.get(group) ?? []), button]);
    button.tabIndex = groups.get(group).length > 1 ? -1 : 0;
  }
  const above = (button, step) => {
    const cell = button.closest("td, th");
    const rows = cell ? [...cell.closest("table").rows] : [];
    for (let at = rows.indexOf(cell?.parentElement) + step; rows[at]; at += step) {
      const found = rows[at].cells[cell.cellIndex]?.querySelector(".told");
      if (found) return found;
    }
    return null;
  };
  document.addEventListener("keydown", (event) => {
    const button = figure(event);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!button || !step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const group = button.closest("table, dl, ul, section");
    const all = [...group.querySelectorAll(".told")]; // as they are sorted now
    const upright = event.key === "ArrowUp" || event.key === "ArrowDown";
    const next = (upright && button.closest("td, th") ? above(button, step) : all[all.indexOf(button) + step]) ?? button;
    for (const one of all) one.tabIndex = one === next ? 0 : -1;
    next.focus();
  });
})();
