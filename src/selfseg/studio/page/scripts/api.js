// Asking the studio. What changes something goes one after the other, in the order in which it was done.

const events = new EventTarget();
let waiting = 0;
let last = Promise.resolve();
let connection = "ok"; // "lost": no answer; "locked": this browser is not let in
let session = null; // of the studio that this page shows; another one has other images or clusters
let gone = false; // whether the studio is another one now: nothing of this page means anything to it
const unsent = []; // what waits, in words

/** The studio said no, or didn't answer; the message is for the person. `decided`: it was about a decision. */
export class Refused extends Error {
  constructor(message, status, decided = false) {
    super(message);
    Object.assign(this, {status, decided});
  }
}

/**
 * "connection" (detail: ok, lost, locked), "saving" (detail: {waiting, failed}), and "gone" (detail: what was not
 * saved, in words) when another studio answers.
 */
export function listen(name, listener) {
  events.addEventListener(name, (event) => listener(event.detail));
}

function tell(name, detail) {
  events.dispatchEvent(new CustomEvent(name, {detail}));
}

function connected(how) {
  if (connection !== how) {
    connection = how;
    tell("connection", how);
  }
}

/** Which studio an answer comes from; the page is for the first one only. */
export function heard(from) {
  if (gone || !from || from === session) return;
  if (session === null) session = from;
  else {
    gone = true;
    tell("gone", [...unsent]);
  }
}

/** What is asked of a studio that is gone ends like what was called off: there is nothing to say of it. */
function stopIfGone() {
  if (gone) throw new DOMException("The studio is another one.", "AbortError");
}

async function ask(path, {what, ...options}) {
  stopIfGone();
  const decided = Boolean(what);
  let response;
  try {
    const headers = {...options.headers, ...(session !== null && {"X-Selfseg-Session": session})};
    response = await fetch(path, {credentials: "same-origin", ...options, headers});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    stopIfGone();
    connected("lost");
    throw new Refused("The studio does not answer.", 0, decided);
  }
  if (response.status === 403) {
    connected("locked");
    throw new Refused("The studio does not know this browser any longer.", 403, decided);
  }
  connected("ok");
  if (!response.ok) {
    let answer = {};
    try {
      answer = await response.json();
    } catch {
      // No JSON: the number is all there is to say.
    }
    if (response.status === 409) heard(answer.session);
    stopIfGone();
    throw new Refused(answer.error ?? `The studio answered ${response.status}.`, response.status, decided);
  }
  return response;
}

export async function get(path, signal) {
  return (await ask(path, {signal})).json();
}

export async function getBytes(path, signal) {
  return (await ask(path, {signal})).arrayBuffer();
}

export async function getPicture(path, signal) {
  return createImageBitmap(await (await ask(path, {signal})).blob());
}

/**
 * Send a decision, `what` in words (none: it is about something else).
 *
 * It is kept when this promise is fulfilled, not before.
 */
export function post(path, body, what) {
  const sent = last.then(async () => {
    const response = await ask(path, {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify(body),
      what,
    });
    return response.json();
  });
  waiting += 1;
  unsent.push(what);
  tell("saving", {waiting, failed: false});
  last = sent.then(() => true, () => false).then((kept) => {
    waiting -= 1;
    unsent.shift();
    tell("saving", {waiting, failed: !kept});
  });
  return sent;
}

/** How many decisions wait for their answer; what was asked before the last of them may be old. */
export const pending = () => (gone ? 0 : waiting);
