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
  // Nothing is replaced under somebody who is typing or has opened something there.
  const busy = () => part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea, summary") ||
    part.querySelector("details[open]") !== null || !getSelection().isCollapsed && part.contains(getSelection().anchorNode);
  const connect = () => {
    source = new EventSource(part.dataset.live);
    source.onopen = () => show("", "Live");
    source.onmessage = (event) => { if (!busy()) part.innerHTML = event.data; };
    source.onerror = () => show("warn", source && source.readyState === EventSource.CLOSED ? "Not live: reload the page" : "Connecting");
    show("", "Live");
  };
  const pause = () => {
    if (source) source.close();
    source = null;
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
