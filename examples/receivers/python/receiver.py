"""A receiver for walhook's webhooks that keeps its inbox in SQLite, with the standard library alone.

    WEBHOOK_SECRETS="whsec_..." LISTEN=127.0.0.1:8080 INBOX=inbox.db python3 receiver.py
"""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# More than one during a rotation.
SECRETS = [base64.b64decode(s.removeprefix("whsec_")) for s in os.environ["WEBHOOK_SECRETS"].split()]
INBOX = os.environ.get("INBOX", "inbox.db")
wake = threading.Event()


def verify(headers, body):
    """Was a signature made with one of our secrets in the last five minutes? The body is the raw bytes."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message_id or not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > 300:
        return False
    for secret in SECRETS:
        mac = hmac.new(secret, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
        want = "v1," + base64.b64encode(mac.digest()).decode()
        for got in headers.get("webhook-signature", "").split():
            if hmac.compare_digest(got.encode(), want.encode()):
                return True
    return False


def inbox():
    db = sqlite3.connect(INBOX, timeout=30)
    db.execute("create table if not exists webhook_inbox (seq integer primary key, webhook_id text not null unique, body text not null, done_at text)")
    return db


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        if not 0 < length <= 65536:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        if not verify(self.headers, body):
            return self.answer(401)
        with inbox() as db:  # commits before the answer; a repeat has the same webhook-id and is dropped
            db.execute("insert into webhook_inbox (webhook_id, body) values (?, ?) on conflict do nothing", (self.headers["webhook-id"], body.decode()))
        db.close()
        self.answer(204)  # the work is done afterwards
        wake.set()

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def work():
    """Handles messages one after the other, in the order in which they arrived."""
    db = inbox()
    while True:
        try:
            if not handle_oldest(db):
                wake.wait(10)
                wake.clear()
        except Exception:  # retries the message, so that no later one overtakes it
            traceback.print_exc()
            time.sleep(1)


def handle_oldest(db):
    """Handles the oldest message that is not done. Returns whether there was one."""
    row = db.execute("select seq, body from webhook_inbox where done_at is null order by seq limit 1").fetchone()
    if row is None:
        return False
    handle(json.loads(row[1]))
    with db:
        db.execute("update webhook_inbox set done_at = datetime('now') where seq = ?", (row[0],))
    return True


def handle(message):
    """Where your work goes."""
    print(message["EventType"], message["Data"]["ResponseId"], flush=True)


if __name__ == "__main__":
    host, port = os.environ["LISTEN"].split(":")
    threading.Thread(target=work, daemon=True).start()
    ThreadingHTTPServer((host, int(port)), Receiver).serve_forever()
