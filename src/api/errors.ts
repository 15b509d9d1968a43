import { defineErrors } from '../errors.ts'

defineErrors({
  'api.malformed': { class: 'permanent', remedy: 'Send well-formed HTTP/1.1, and as body one well-formed JSON document in UTF-8.' },
  'api.too_large': { class: 'permanent', remedy: 'Send at most 1 MiB.' },
  'api.unsupported_media_type': { class: 'permanent', remedy: 'Send the body as `Content-Type: application/json`, not compressed.' },
  'api.host_refused': {
    class: 'permanent',
    remedy: 'Call the API by localhost or its bound address, or add the name to DARKROOM_ALLOWED_HOSTS.',
  },
  'api.origin_refused': {
    class: 'permanent',
    remedy: 'Only pages of this server may call it; others need to be in DARKROOM_ALLOWED_ORIGINS.',
  },
  'api.forwarded_refused': { class: 'permanent', remedy: 'Requests through a proxy need an API key: `darkroom keys add`.' },
  'api.unauthorized': { class: 'permanent', remedy: 'Send `Authorization: Bearer KEY` with a key from `darkroom keys add`.' },
  'api.forbidden': { class: 'permanent', remedy: 'Use a key that has the scope named above.' },
  'api.not_found': { class: 'permanent', remedy: 'GET /openapi.json lists the paths there are.' },
  'api.method_not_allowed': { class: 'permanent', remedy: 'Use one of the methods in the `Allow` header.' },
  'api.board_read_only': { class: 'permanent', remedy: 'Start the API with DARKROOM_BOARD_WRITE=1 to change queues by hand.' },
  'api.board_refused': { class: 'permanent', remedy: 'Read what the board said; the queue may have changed meanwhile.' },
  'api.key_required': { class: 'permanent', remedy: 'Add a key first (`darkroom keys add`), or bind DARKROOM_HOST to 127.0.0.1.' },
  'api.not_ready': { class: 'transient', remedy: 'Read the reasons; start a worker for each lane that has none.' },
  'api.closing': { class: 'transient', remedy: 'This process is shutting down; send the request again in a moment.' },
  'api.port_taken': {
    class: 'transient',
    remedy: 'Stop what listens there, or choose another port with DARKROOM_PORT (0 takes a free one).',
  },
  'api.failed': { class: 'permanent', remedy: 'Look for the request id in the log of the API.' },
})
