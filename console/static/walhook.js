"use strict";
// Pages are complete without this script. With it, parts of them are live: <div data-live="/path"> gets what the server sends.
for (const part of document.querySelectorAll("[data-live]")) {
  const control = document.createElement("span");
  const dot = document.createElement("span");
  const text = document.createElement("span");
  const button = document.createElement("button");
  control.className = "live-control";
  dot.className = "dot";
  button.type = "button";
  button.className = "link";
  text.append(dot, document.createTextNode("Live"));
  control.append(text, button);
  (document.querySelector("[data-live-control]") || part).prepend(control);

  let source = null;
  const show = (state, label) => {
    dot.className = "dot " + state;
    text.lastChild.data = label;
    button.textContent = source ? "Pause" : "Resume";
  };
  // Nothing is replaced under somebody whose focus is there, or who has opened or selected something; what came meanwhile is shown afterwards.
  let latest = null;
  const busy = () => part.contains(document.activeElement) || part.querySelector("details[open]") !== null ||
    !getSelection().isCollapsed && part.contains(getSelection().anchorNode);
  const refresh = () => {
    if (latest === null || busy()) return;
    part.innerHTML = latest;
    latest = null;
  };
  part.addEventListener("focusout", () => setTimeout(refresh));
  part.addEventListener("toggle", refresh, true);
  document.addEventListener("selectionchange", refresh);
  const connect = () => {
    source = new EventSource(part.dataset.live);
    source.onopen = () => show("", "Live");
    source.onmessage = (event) => { latest = event.data; refresh(); };
    source.onerror = () => show("warn", source && source.readyState === EventSource.CLOSED ? "Not live: reload the page" : "Connecting");
    show("", "Live");
  };
  const pause = () => {
    if (source) source.close();
    source = latest = null;
    show("off", "Paused");
  };
  let paused = false;
  button.onclick = () => { paused = !!source; if (paused) pause(); else connect(); };
  // A page that nobody sees asks for nothing.
  document.addEventListener("visibilitychange", () => { if (document.hidden) pause(); else if (!paused) connect(); });
  connect();
}
// Buttons that copy: <button data-copy="text" hidden>.
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.onclick = async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  };
}
