"""The clients: `python3 -m failover.client FILE FIRST_ID PORT…` inserts numbered rows until its standard input is closed.

One of them does what an application does: a libpq string with all hosts and target_session_attrs=read-write. One more for each server
knows only that server and tries it again and again: they show when two servers take rows at once. FILE gets one JSON array a line,
`[client, id, sent, acknowledged, port, timeline]`, for each row whose commit was acknowledged, with times of CLOCK_MONOTONIC. A row whose
answer did not come is neither acknowledged nor written again.
"""
import json
import os
import socket
import sys
import threading
import time

import psycopg2

# How long the clients wait for one row. Then they give up its connection: a server that hangs must not hold up a client for ever.
ROW_LIMIT = 2.0
# Numbers that each client has for itself.
SPAN = 100_000_000
INSERT = (
    "insert into bench values (%s) returning inet_server_port(), "
    "('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int"
)


class Client(threading.Thread):
    def __init__(self, name, ports, first_id, pause, out, stop):
        super().__init__(daemon=True)
        self.title, self.ports, self.id, self.pause, self.out, self.stop = name, ports, first_id, pause, out, stop
        self.session, self.row_deadline = None, None

    def run(self):
        while not self.stop.is_set():
            try:
                if self.session is None:
                    self.session = self.connect()
                self.row_deadline = time.monotonic() + ROW_LIMIT
                if self.title == "application" or self.takes_writes():
                    self.insert()
                self.row_deadline = None
                time.sleep(self.pause)
            except psycopg2.Error:
                self.row_deadline = None
                self.forget()
                time.sleep(0.01)

    def connect(self):
        session = psycopg2.connect(
            host=",".join(["127.0.0.1"] * len(self.ports)), port=",".join(map(str, self.ports)), user="postgres", password="bench-superuser",
            dbname="postgres", connect_timeout=2, target_session_attrs="read-write" if self.title == "application" else "any",
        )
        session.autocommit = True
        return session

    def takes_writes(self):
        with self.session.cursor() as cursor:
            cursor.execute("select not pg_is_in_recovery()")
            return cursor.fetchone()[0]

    def insert(self):
        self.id += 1
        with self.session.cursor() as cursor:
            sent = time.monotonic()
            cursor.execute(INSERT, (self.id,))
            acknowledged = time.monotonic()
            port, timeline = cursor.fetchone()
        # A warning on a commit says that it was not confirmed as asked for: the application may not count on it.
        doubtful = any("WARNING" in notice for notice in self.session.notices)
        del self.session.notices[:]
        if not doubtful:
            self.out.write(json.dumps([self.title, self.id, sent, acknowledged, port, timeline]) + "\n")

    def forget(self):
        session, self.session = self.session, None
        if session is not None:
            try:
                session.close()
            except psycopg2.Error:
                pass

    def give_up_late_row(self):
        session, deadline = self.session, self.row_deadline
        if session is None or deadline is None or time.monotonic() < deadline:
            return
        try:
            # Its own descriptor: closing psycopg2's would leave libpq with another file's number.
            with socket.socket(fileno=os.dup(session.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)
        except (OSError, psycopg2.Error):
            pass


def main():
    path, first, ports = sys.argv[1], int(sys.argv[2]), [int(port) for port in sys.argv[3:]]
    stop = threading.Event()
    with open(path, "a", buffering=1) as out:
        clients = [Client("application", ports, first, 0.004, out, stop)]
        clients += [Client(f"only {port}", [port], first + SPAN * (n + 1), 0.05, out, stop) for n, port in enumerate(ports)]
        for client in clients:
            client.start()
        end = threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True)
        end.start()
        while not stop.wait(0.05):
            for client in clients:
                client.give_up_late_row()
        until = time.monotonic() + ROW_LIMIT + 1
        while any(client.is_alive() for client in clients) and time.monotonic() < until:
            for client in clients:
                client.give_up_late_row()
            time.sleep(0.05)


if __name__ == "__main__":
    main()
