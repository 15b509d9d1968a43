/** HTTP by hand: bytes as they are to a connection, and the responses that come back. */
import { connect, type Socket } from 'node:net'

export interface RawAnswer {
  status: number
  headers: Record<string, string>
  text: string
  // oxlint-disable-next-line typescript/no-explicit-any -- tests read what they know is there
  json: any
}

export interface Connection {
  socket: Socket
  send: (bytes: string | Uint8Array) => void
  /** The next whole response; undefined when the connection ends without. @throws Error after `ms` without either */
  next: (ms?: number) => Promise<RawAnswer | undefined>
}

/**
 * Text is sent as Latin-1: each character is one byte. A response to HEAD has no body, and a stream of events is whole
 * when its head is.
 */
export function connection(port: number, { isHead = false } = {}): Connection {
  const socket = connect({ port, host: '127.0.0.1' })
  let held = Buffer.alloc(0)
  let isOver = false
  const heard = new Set<() => void>()
  const tell = (): void => [...heard].forEach((each) => each())
  socket.on('data', (bytes) => {
    held = Buffer.concat([held, bytes])
    tell()
  })
  // A reset is an end like another.
  socket.on('error', () => {})
  socket.on('close', () => {
    isOver = true
    tell()
  })
  return {
    socket,
    send: (bytes) => void socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes),
    next: (ms = 5000) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(
          () => done(() => reject(new Error(`nothing for ${ms} ms; held: ${held.toString('latin1').slice(0, 500)}`))),
          ms,
        )
        const done = (act: () => void): void => {
          clearTimeout(timer)
          heard.delete(look)
          act()
        }
        const look = (): void => {
          const answer = take()
          if (answer) done(() => resolve(answer))
          else if (isOver) done(() => resolve(undefined))
        }
        heard.add(look)
        look()
      }),
  }

  function take(): RawAnswer | undefined {
    const end = held.indexOf('\r\n\r\n')
    if (end < 0) return undefined
    const [line = '', ...lines] = held.subarray(0, end).toString('latin1').split('\r\n')
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(line)?.[1])
    if (!status) throw new Error(`no status line: ${line}`)
    const headers = Object.fromEntries(
      lines.map((each) => [each.slice(0, each.indexOf(':')).toLowerCase(), each.slice(each.indexOf(':') + 1).trim()]),
    )
    const found = body(held.subarray(end + 4), status, headers)
    if (!found) return undefined
    held = held.subarray(end + 4 + found.length)
    // 100 Continue is no answer yet.
    if (status < 200) return take()
    const isJson = /^application\/([\w.]+\+)?json/.test(headers['content-type'] ?? '') && found.text !== ''
    return { status, headers, text: found.text, json: isJson ? JSON.parse(found.text) : undefined }
  }

  /** The body and how many bytes it took; undefined while it is not whole. */
  function body(rest: Buffer, status: number, headers: Record<string, string>): { text: string; length: number } | undefined {
    const isBare = isHead || status < 200 || status === 204 || status === 304 || headers['content-type'] === 'text/event-stream'
    if (isBare) return { text: '', length: 0 }
    if (headers['transfer-encoding'] !== 'chunked') {
      const length = headers['content-length'] === undefined ? undefined : Number(headers['content-length'])
      if (length === undefined) return isOver ? { text: rest.toString(), length: rest.length } : undefined
      return rest.length < length ? undefined : { text: rest.subarray(0, length).toString(), length }
    }
    let text = ''
    for (let at = 0; ;) {
      const line = rest.indexOf('\r\n', at)
      if (line < 0) return undefined
      const size = Number.parseInt(rest.subarray(at, line).toString(), 16)
      if (rest.length < line + 4 + size) return undefined
      text += rest.subarray(line + 2, line + 2 + size).toString()
      at = line + 4 + size
      if (size === 0) return { text, length: at }
    }
  }
}

/** One request on a connection of its own. */
export async function raw(
  port: number,
  bytes: string | Uint8Array,
  { ms, isHead = false }: { ms?: number; isHead?: boolean } = {},
): Promise<RawAnswer | undefined> {
  const { socket, send, next } = connection(port, { isHead })
  try {
    send(bytes)
    return await next(ms)
  } finally {
    socket.destroy()
  }
}

/** A request with the headers that it needs; more of the same name come after them. */
export const message = (method: string, target: string, headers: string[] = [], body: string | Uint8Array = ''): Buffer => {
  const bytes = typeof body === 'string' ? Buffer.from(body, 'latin1') : body
  const host = headers.some((each) => /^host:/i.test(each)) ? [] : ['Host: localhost']
  const length =
    bytes.length > 0 && !headers.some((each) => /^(content-length|transfer-encoding):/i.test(each))
      ? [`Content-Length: ${bytes.length}`]
      : []
  const type = bytes.length > 0 && !headers.some((each) => /^content-type:/i.test(each)) ? ['Content-Type: application/json'] : []
  const head = [`${method} ${target} HTTP/1.1`, ...host, ...headers, ...type, ...length, '', ''].join('\r\n')
  return Buffer.concat([Buffer.from(head, 'latin1'), bytes])
}
