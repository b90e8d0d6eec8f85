// Keeps the operators' page live and takes its decisions. The server renders everything that is
// shown; this script puts the parts in place, asks for confirmation and sends the decision.
"use strict";

const part = (id) => document.getElementById(id);
const dialog = part("dialog");
let status = null;
let chosen = null;
let said = "";

function follow() {
  const source = new EventSource("/v1/events");
  const show = (state, text) => {
    part("connection").className = "state " + state;
    part("connection").textContent = text;
  };
  source.onopen = () => show("live", "live");
  source.onerror = () => show("lost", "not connected; trying again");
  source.addEventListener("panel", (event) => {
    const { name, html } = JSON.parse(event.data);
    replace(document.querySelector(`[data-panel="${name}"]`), html);
  });
  source.addEventListener("status", (event) => {
    status = JSON.parse(event.data);
    part("seen").textContent =
      "Seen " + new Date(status.at * 1000).toISOString().slice(0, 19).replace("T", " ") + " UTC";
    document.title = `${status.verdict.toUpperCase()}, ${status.phase}`;
    announce(`Phase ${status.phase}, ${status.primary} answers. The verdict is ${status.verdict}. ${status.may_flip}`);
    renderActions();
  });
}

// What is open stays open, and nothing is taken from under the keyboard.
function replace(panel, html) {
  if (panel === null || panel.contains(document.activeElement)) return;
  const named = (one) =>
    [one.closest("figure")?.querySelector("figcaption"), one.querySelector("summary")]
      .map((part) => part?.textContent).join(": ");
  const opened = new Set([...panel.querySelectorAll("details[open]")].map(named));
  panel.innerHTML = html;
  panel.querySelectorAll("details").forEach((one) => { one.open = opened.has(named(one)); });
}

function announce(text) {
  if (text === said) return;
  said = text;
  part("news").textContent = text;
}

function renderActions() {
  const list = part("actions");
  for (const action of status.actions) {
    let item = list.querySelector(`[data-action="${action.name}"]`);
    if (item === null) {
      item = document.createElement("li");
      item.dataset.action = action.name;
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-describedby", `note-${action.name}`);
      button.addEventListener("click", () => ask(action.name));
      const note = document.createElement("p");
      note.id = `note-${action.name}`;
      item.append(button, note);
      list.append(item);
    }
    const button = item.querySelector("button");
    button.textContent = action.title;
    button.setAttribute("aria-disabled", String(action.refused !== ""));
    item.querySelector("p").textContent = action.refused || action.will[0];
  }
}

function ask(name) {
  chosen = status.actions.find((action) => action.name === name);
  part("dialog-title").textContent = chosen.title + "?";
  part("dialog-refused").textContent = chosen.refused;
  part("dialog-will").replaceChildren(...chosen.will.map((sentence) => {
    const item = document.createElement("li");
    item.textContent = sentence;
    return item;
  }));
  part("dialog-value").hidden = chosen.takes === "";
  part("value").required = chosen.takes !== "";
  part("value").value = chosen.takes === "rate" ? Math.round(status.mirror_rate * 100)
    : chosen.takes === "share" ? 10 : "";
  part("value").min = 0;
  part("value").max = 100;
  part("dialog-value").querySelector("span").textContent =
    chosen.takes === "rate" ? "Share of queries to mirror, %" : "Share of reads for PostgreSQL, %";
  part("dialog-wait-label").hidden = !(name === "cutover" && chosen.refused !== "");
  part("dialog-force-label").hidden = !(chosen.forcible && chosen.refused !== "");
  part("dialog-latch-label").hidden = !(name === "rollback" && status.latch);
  for (const box of ["wait", "force", "latch"]) part(`dialog-${box}`).checked = false;
  part("dialog-error").textContent = "";
  part("why").value = "";
  // On the version that is on the screen now: a change that comes meanwhile makes the server refuse.
  dialog.dataset.version = status.route_version;
  dialog.showModal();
  part("why").focus();
}

function decision() {
  const why = part("why").value.trim();
  const body = {
    route_version: Number(dialog.dataset.version), why, operator: part("operator").value.trim(),
  };
  if (chosen.takes !== "") body[chosen.takes] = Number(part("value").value) / 100;
  if (part("dialog-force").checked) body.force = why;
  if (chosen.name === "cutover") body.wait = part("dialog-wait").checked;
  if (chosen.name === "rollback") body.clear_latch = part("dialog-latch").checked;
  return body;
}

async function confirm(event) {
  event.preventDefault();
  const button = part("dialog-confirm");
  button.disabled = true;
  part("dialog-error").textContent = "";
  try {
    const response = await fetch(`/v1/control/${chosen.name}`, {
      method: "POST",
      headers: {
        "content-type": "application/json", authorization: `Bearer ${part("token").value}`,
      },
      body: JSON.stringify(decision()),
    });
    const answer = await response.json();
    if (!response.ok) {
      // The newer reason stands alone, where it can be seen.
      part("dialog-refused").textContent = "";
      part("dialog-error").textContent = answer.detail;
      part("dialog-error").scrollIntoView({ block: "nearest" });
      return;
    }
    const waits = answer.waiting_for.length ? ` It waits for: ${answer.waiting_for.join("; ")}.` : "";
    const result = answer.result && answer.result.why ? ` ${answer.result.why}.` : "";
    part("outcome").textContent =
      `${chosen.title}: taken. The phase is ${answer.phase}, ${answer.primary} answers.${waits}${result}`;
    dialog.close();
  } catch {
    part("dialog-error").textContent = "The proxy did not answer; look whether the decision was taken.";
  } finally {
    button.disabled = false;
  }
}

part("dialog-cancel").addEventListener("click", () => dialog.close());
dialog.querySelector("form").addEventListener("submit", confirm);
follow();
