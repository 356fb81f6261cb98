"""As much of Google Cloud Storage as orbax, tensorstore and gcsfs use, in memory.

Written after the reference of its JSON API (cloud.google.com/storage/docs/json_api/v1, read by way
of what the two clients send). What the emulators on PyPI leave out, and a checkpoint needs, is that
a write may name the generation that it replaces: of two such writes at once only one takes place.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from typing import NamedTuple


class Stored(NamedTuple):
    """An object: its bytes, and the number of the write that made it."""

    content: bytes
    generation: int


class Server(http.server.ThreadingHTTPServer):
    """Buckets by name, each {name: Stored}; `refuse` makes the server answer with an error.

    refuse: None, or a function of (method, path) that returns the status to answer with, or 0.
    """

    daemon_threads = True

    def __init__(self, *buckets):
        super().__init__(('localhost', 0), Handler)
        self.buckets = {name: {} for name in buckets}
        self.lock = threading.Lock()
        self.generation = 0
        self.uploads = {}  # begun in parts: what has come by number
        self.refuse = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        """As STORAGE_EMULATOR_HOST and TENSORSTORE_GCS_HTTP_URL want it."""
        return f'http://localhost:{self.server_address[1]}'

    def handle_error(self, *_):
        """Says nothing either: who has enough of an answer hangs up."""

    def write(self, bucket, name, content, wanted=None):
        """Stores an object, if its generation is the wanted one (0: if there is none)."""
        with self.lock:
            before = self.buckets[bucket].get(name)
            if wanted is not None and int(wanted) != (before.generation if before else 0):
                return None
            self.generation += 1
            self.buckets[bucket][name] = Stored(content, self.generation)
            return self.buckets[bucket][name]


def described(bucket, name, stored):
    """An object as the API describes it."""
    return {
        'kind': 'storage#object', 'bucket': bucket, 'name': name, 'size': str(len(stored.content)),
        'generation': str(stored.generation), 'metageneration': '1',
        'md5Hash': base64.b64encode(hashlib.md5(stored.content).digest()).decode(),
        'updated': '2026-01-01T00:00:00.000Z', 'timeCreated': '2026-01-01T00:00:00.000Z',
    }  # fmt: skip


def listed(bucket, objects, query):
    """What lies below a prefix; with a delimiter, the folders there in place of their objects."""
    prefix, delimiter = query.get('prefix', ''), query.get('delimiter')
    items, folders = [], set()
    for name in sorted(objects):
        if not name.startswith(prefix) or not (
            query.get('startOffset', '') <= name < query.get('endOffset', '\U0010ffff')
        ):
            continue
        folder, cut, _ = name.removeprefix(prefix).partition(delimiter or '\0')
        if delimiter and cut:
            folders.add(prefix + folder + delimiter)
        else:
            items.append(described(bucket, name, objects[name]))
    return {'kind': 'storage#objects', 'items': items, 'prefixes': sorted(folders)}


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        """Says nothing."""

    def do_GET(self):
        """Answers a GET."""
        self._answer(self._read())

    def do_POST(self):
        """Answers a POST."""
        self._answer(self._written())

    do_PUT = do_POST

    def do_DELETE(self):
        """Answers a DELETE."""
        self._answer(self._deleted(self._body(), self.path))

    def _answer(self, found):
        status, content, headers = found
        refused = self.server.refuse and self.server.refuse(self.command, self.path)
        if refused:
            status, content, headers = refused, b'refused', {}
        if isinstance(content, dict):
            headers = {**headers, 'Content-Type': 'application/json'}
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, 'Content-Length': len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def _body(self):
        return self.rfile.read(int(self.headers.get('Content-Length') or 0))

    def _asked(self, address):
        """(bucket, name or None, what follows the name, query)."""
        url = urllib.parse.urlparse(address)
        query = dict(urllib.parse.parse_qsl(url.query))
        match = re.fullmatch(r'.*?/b/([^/]+)(?:/o(?:/([^/]+))?(/.*)?)?', url.path)
        name = match[2] and urllib.parse.unquote(match[2])
        return match[1], name, match[3], query

    def _read(self):
        bucket, name, _, query = self._asked(self.path)
        if bucket not in self.server.buckets:
            return 404, {}, {}
        with self.server.lock:
            objects = dict(self.server.buckets[bucket])
        if '/o' not in urllib.parse.urlparse(self.path).path:
            return 200, {'kind': 'storage#bucket', 'name': bucket}, {}
        if name is None:
            return 200, listed(bucket, objects, query), {}
        if name not in objects:
            return 404, {}, {}
        stored = objects[name]
        if query.get('alt') != 'media':
            return 200, described(bucket, name, stored), {}
        headers = {'X-Goog-Generation': stored.generation}
        span = re.fullmatch(r'bytes=(\d*)-(\d*)', self.headers.get('Range', ''))
        if not span:
            return 200, stored.content, headers
        size = len(stored.content)
        first = int(span[1]) if span[1] else size - int(span[2])
        last = min(int(span[2]) if span[1] and span[2] else size - 1, size - 1)
        if first >= size:
            return 416, b'', headers
        headers['Content-Range'] = f'bytes {first}-{last}/{size}'
        return 206, stored.content[first : last + 1], headers

    def _written(self):
        body = self._body()
        bucket, name, rest, query = self._asked(self.path)
        if bucket not in self.server.buckets:
            return 404, {}, {}
        if rest:  # NAME/rewriteTo/b/BUCKET/o/NAME
            target, other, _, _ = self._asked(rest)
            source = self.server.buckets[bucket].get(name)
            if source is None:
                return 404, {}, {}
            stored = self.server.write(target, other, source.content)
            return 200, {'done': True, 'resource': described(target, other, stored)}, {}
        name, content = query.get('name'), body
        if query['uploadType'] == 'resumable':
            number = len(self.server.uploads)
            self.server.uploads[number] = b''
            to = f'uploadType=part&upload={number}&name={urllib.parse.quote(name, safe="")}'
            where = f'{self.server.address}/upload/storage/v1/b/{bucket}/o?{to}'
            return 200, {}, {'Location': where}
        if query['uploadType'] == 'part':
            number = int(query['upload'])
            self.server.uploads[number] += body
            content = self.server.uploads[number]
            if self.headers['Content-Range'].endswith('/*'):  # more will come
                return 308, b'', {'Range': f'bytes=0-{len(content) - 1}'}
        if query['uploadType'] == 'multipart':
            boundary = re.search('boundary="?([^";]+)', self.headers['Content-Type'])[1]
            facts, content = (
                part.split(b'\n\n', 1)[1].removesuffix(b'\n')
                for part in body.split(f'--{boundary}'.encode())[1:3]
            )
            name = json.loads(facts)['name']
        stored = self.server.write(bucket, name, content, query.get('ifGenerationMatch'))
        return (200, described(bucket, name, stored), {}) if stored else (412, {}, {})

    def _deleted(self, body, address):
        bucket, name, _, query = self._asked(address)
        with self.server.lock:
            before = self.server.buckets.get(bucket, {}).get(name)
            wanted = query.get('ifGenerationMatch')
            if before is None:
                return 404, {}, {}
            if wanted is not None and int(wanted) != before.generation:
                return 412, {}, {}
            del self.server.buckets[bucket][name]
        return 204, b'', {}
