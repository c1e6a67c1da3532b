// Asking the studio. What changes something goes one after the other, in the order in which it was done.

const events = new EventTarget();
let waiting = 0;
let last = Promise.resolve();
let connection = "ok"; // "lost": no answer; "locked": this browser is not let in

/** The studio said no, or didn't answer; the message is for the person. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** "connection" (detail: ok, lost, locked) and "saving" (detail: {waiting, failed}). */
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

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, {credentials: "same-origin", ...options});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    connected("lost");
    throw new Refused("The studio does not answer.", 0);
  }
  if (response.status === 403) {
    connected("locked");
    throw new Refused("The studio does not know this browser any longer.", 403);
  }
  connected("ok");
  if (!response.ok) {
    let sentence = `The studio answered ${response.status}.`;
    try {
      sentence = (await response.json()).error ?? sentence;
    } catch {
      // No JSON: the number is all there is to say.
    }
    throw new Refused(sentence, response.status);
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

/** Send a decision. It is kept when this promise is fulfilled, not before. */
export function post(path, body) {
  const sent = last.then(async () => {
    const response = await ask(path, {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify(body),
    });
    return response.json();
  });
  waiting += 1;
  tell("saving", {waiting, failed: false});
  last = sent.then(() => true, () => false).then((kept) => {
    waiting -= 1;
    tell("saving", {waiting, failed: !kept});
  });
  return sent;
}

/** How many decisions were sent; what was asked before the last of them may be old. */
export const pending = () => waiting;
