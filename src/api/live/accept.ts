import type { WebSocket } from 'ws'

/** Takes a request for a connection. `ended` is called when its line ends, were it never a connection. */
export type Accept = (hold: (socket: WebSocket) => void, ended: () => void) => void
