/** The commands against what answers in Darkroom's place, and against a Darkroom whose every text is hostile. */
import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTcpServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sha256Of } from '../../src/artifacts/store.ts'
import { root } from '../../src/config.ts'
import { run, start, type Ended } from '../support/command.ts'
import { png } from '../api/harness.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-hostile-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

type Handler = (request: IncomingMessage, response: ServerResponse) => void

async function serving<T>(handler: Handler, use: (url: string) => Promise<T>): Promise<T> {
  const server = createServer(handler)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    return await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

const darkroom = (url: string, ...args: string[]): Promise<Ended> => run(args, { DARKROOM_URL: url, DARKROOM_DATA: folder })
const health = '{"status":"ok","uptimeS":1}'
const answerJson = (response: ServerResponse, value: unknown): void =>
  void response.writeHead(200, { 'Content-Type': 'application/json' }).end(typeof value === 'string' ? value : JSON.stringify(value))

describe('what is not Darkroom is named in one sentence, with what to do', () => {
  const html = '<html><title>It works!</title></html>'
  const cases: [string, Handler, RegExp][] = [
    [
      'a page',
      (_, response) => response.writeHead(200, { 'Content-Type': 'text/html' }).end(html),
      /answered 200 with what is no answer of Darkroom: .*It works/,
    ],
    [
      'a page that is an error',
      (_, response) => response.writeHead(502, { 'Content-Type': 'text/html' }).end(html),
      /answered 502 with .*It works/,
    ],
    [
      'JSON of something else',
      (_, response) => answerJson(response, { hello: 'world' }),
      /answered 200 with what is no answer of Darkroom/,
    ],
    ['JSON that is no object', (_, response) => answerJson(response, 'null'), /answered 200 with what is no answer of Darkroom: "null"/],
    [
      'a redirect',
      (_, response) => response.writeHead(302, { Location: 'http://elsewhere.example/\u001b[2J' }).end(),
      /answered 302 with a redirect/,
    ],
    ['nothing', (_, response) => response.writeHead(200).end(), /answered 200 with nothing/],
    [
      'half an answer',
      (request, response) => (request.url === '/v1/health' ? answerJson(response, health) : answerJson(response, '{"sessions":[')),
      /answered 200 with what is no answer of Darkroom/,
    ],
  ]
  it.each(cases)('%s', async (_, handler, words) => {
    // A redirect with such a Location cannot be sent by Node; by others it can.
    const safe: Handler = (request, response) => {
      try {
        handler(request, response)
      } catch {
        response.socket?.end('HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\u009b2J\r\nContent-Length: 0\r\n\r\n')
      }
    }
    const { code, stdout, stderr } = await serving(safe, (url) => darkroom(url, 'sessions'))
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(words)
    expect(stderr).toMatch(/^error: .*\nSet DARKROOM_URL \(or --url\) .*\n\(api\.not_darkroom\)\n$/)
  })

  it('something that speaks no HTTP, and something that is cut', async () => {
    const server = createTcpServer((socket) => socket.on('error', () => {}).end('-ERR unknown command\r\n'))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { code, stderr } = await darkroom(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, 'sessions')
    server.close()
    expect(code).toBe(1)
    expect(stderr).toMatch(/^error: no answer from http:.*\nStart Darkroom .*\n\(api\.unreachable\)\n$/)
    const cut: Handler = (_, response) => response.writeHead(200, { 'Content-Length': '100' }).write('{"status', () => response.destroy())
    expect((await serving(cut, (url) => darkroom(url, 'sessions'))).stderr).toMatch(
      /^error: no answer from http:.*\nStart Darkroom .*\n\(api\.unreachable\)\n$/,
    )
  })

  it.each(['nonsense', 'ftp://127.0.0.1', 'http://user:secret@127.0.0.1:1', 'http://[::1', ''])('the address %j', async (url) => {
    const { code, stderr } = await run(['sessions', '--url', url], { DARKROOM_DATA: folder })
    expect(code).toBe(1)
    expect(stderr).toMatch(/^error: --url is no address of an API: .*\nGive it like http:\/\/127\.0\.0\.1:4780.*\n\(config\.invalid\)\n$/)
  })
})

describe('a Darkroom whose texts are hostile', () => {
  const evil = '\u001b]0;owned\u0007\u001b[2J\u009b31m\u202egnp.exe\u2066\u200f\r\nerror: fine\u0000\ud800'
  // oxlint-disable-next-line no-control-regex -- what must not be there
  const dangerous = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/

  const session = {
    id: 'x',
    workflow: evil,
    status: 'succeeded',
    waiting: evil,
    input: { prompt: evil, [evil]: evil },
    output: { images: [] as unknown[] },
    error: null,
    progress: null,
    tags: [evil],
    device: evil,
    exactnessKey: evil,
    retryOf: evil,
    parent: evil,
    createdAt: '2026-01-01T00:00:00.000Z',
    startedAt: null,
    endedAt: null,
  }
  const device = {
    id: evil,
    name: evil,
    state: evil,
    status: evil,
    usedBytes: null,
    totalBytes: null,
    isDefault: false,
    model: evil,
    alerts: [{ code: evil, message: evil }],
  }
  const problem = {
    type: 'x',
    title: evil,
    status: 422,
    detail: evil,
    code: evil,
    class: 'permanent',
    remedy: evil,
    requestId: evil,
    problems: [
      { field: evil, message: evil },
      { field: evil, message: evil },
    ],
  }
  const handler: Handler = (request, response) => {
    if (request.url === '/v1/health') return answerJson(response, health)
    if (request.url?.startsWith('/v1/devices')) return answerJson(response, { devices: [device] })
    if (request.url?.startsWith('/v1/sessions?')) return answerJson(response, { sessions: [session], next: evil })
    if (request.url === '/v1/sessions/x') return answerJson(response, session)
    response.writeHead(422, { 'Content-Type': 'application/problem+json' }).end(JSON.stringify(problem))
  }

  it('writes nothing that a terminal acts on, and no line that is not ours', async () => {
    const outputs = await serving(handler, (url) =>
      Promise.all(
        [
          ['sessions', '--limit', '9'],
          ['sessions', '--limit', '9', '--json'],
          ['show', 'x'],
          ['show', 'x', '--json'],
          ['devices'],
          ['cancel', 'x'],
        ].map((args) => darkroom(url, ...args)),
      ),
    )
    for (const { stdout, stderr } of outputs) {
      expect(stdout).not.toMatch(dangerous)
      expect(stderr).not.toMatch(dangerous)
      expect(`${stdout}\n${stderr}`).not.toMatch(/^error: fine/m)
    }
    const [list, listJson, , showJson, , cancel] = outputs
    expect(list?.stdout).toContain('\\u001b]0;owned\\u0007')
    // JSON of the same value.
    expect((JSON.parse(listJson?.stdout ?? '') as { sessions: unknown[] }).sessions[0]).toEqual(session)
    expect(JSON.parse(showJson?.stdout ?? '')).toEqual(session)
    expect(cancel?.stderr).toMatch(/^error: 2 fields are at fault\n {2}.*\n {2}.*\n.*\n\(.*\)\n$/)
  })

  it('saves pictures under names of its own, beside what is there', async () => {
    const sha256 = sha256Of(png)
    const out = join(folder, 'out')
    await mkdir(out)
    const name = `darkroom-7-${sha256.slice(0, 8)}`
    const outside = join(folder, 'outside.png')
    await writeFile(outside, 'mine')
    // The first name leads out, the second is another file, the third is free.
    await symlink(outside, join(out, `${name}.png`))
    await writeFile(join(out, `${name}-2.png`), 'mine too')
    const images = ['../../escape', 7, '/etc/x', { toString: 'x' }, `a\u001b[2J`].map((seed) => ({
      sha256,
      mediaType: 'image/png',
      seed,
      url: '../../../etc/passwd',
    }))
    const drawn = { ...session, output: { images }, endedAt: session.createdAt }
    const draws: Handler = (request, response) => {
      if (request.url === '/v1/health') return answerJson(response, health)
      if (request.method === 'POST') return answerJson(response, { ...drawn, status: 'queued' })
      if (request.url?.endsWith('/events')) return response.writeHead(204).end()
      if (request.url?.startsWith('/v1/artifacts/')) return response.writeHead(200, { 'Content-Type': 'image/png' }).end(png)
      answerJson(response, drawn)
    }
    const { code, stdout } = await serving(draws, (url) => darkroom(url, 'generate', 'x', '--out', out))
    expect(code).toBe(0)
    const plain = `darkroom-${sha256.slice(0, 8)}.png`
    expect(stdout.trim().split('\n')).toEqual([plain, `${name}-3.png`, plain, plain, plain].map((file) => `saved ${join(out, file)}`))
    expect((await readdir(out)).toSorted()).toEqual([plain, `${name}-2.png`, `${name}-3.png`, `${name}.png`].toSorted())
    expect([await readFile(outside, 'utf8'), await readFile(join(out, `${name}-2.png`), 'utf8')]).toEqual(['mine', 'mine too'])
    expect(await readFile(join(out, plain))).toEqual(png)

    // Bytes that are not those of the name, and a name that is no hash, are refused and leave nothing.
    images.splice(0, 5, { sha256: '../../escape', mediaType: 'image/png', seed: 1, url: '' })
    const refused = await serving(draws, (url) => darkroom(url, 'generate', 'x', '--out', join(folder, 'refused')))
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('artifact.corrupt') as string })
    expect((await readdir(folder)).filter((each) => each === 'refused' || each.startsWith('escape'))).toEqual([])
  })

  it('a stream that is no stream, and one that always ends at once, are told of', async () => {
    const page: Handler = (request, response) => {
      if (request.url === '/v1/health') return answerJson(response, health)
      if (request.url?.endsWith('/events')) return response.writeHead(200, { 'Content-Type': 'text/html' }).end('<html>')
      answerJson(response, session)
    }
    expect(await serving(page, (url) => darkroom(url, 'show', 'x', '--follow'))).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no stream of events') as string,
    })
  })
})

describe('a refusal is printed once', () => {
  const refusing =
    (problems: { field: string; message: string }[]): Handler =>
    (request, response) => {
      if (request.url === '/v1/health') return answerJson(response, health)
      const detail = problems.map(({ field, message }) => `${field}: ${message}`).join('; ')
      const document = {
        title: 'Unprocessable',
        status: 422,
        detail,
        code: 'request.invalid',
        class: 'permanent',
        remedy: 'Mend it.',
        problems,
      }
      response.writeHead(422, { 'Content-Type': 'application/problem+json' }).end(JSON.stringify(document))
    }
  const steps = { field: 'steps', message: 'must be at most 1000' }
  const width = { field: 'width', message: 'must be a multiple of 8' }

  it.each([
    ['of the API, one field', [steps], ['cancel', 'x'], ['must be at most 1000', 'Mend it.']],
    ['of the API, two fields', [steps, width], ['cancel', 'x'], ['must be at most 1000', 'must be a multiple of 8', 'Mend it.']],
    ['of an option that is not there', [], ['sessions', '--nonsense'], ['--nonsense']],
    ['of a value', [], ['sessions', '--limit', 'many'], ['many']],
    ['of a command that is not there', [], ['sesions'], ['sesions']],
    ['of a file that is not there', [], ['verify', '/nowhere.png'], ['/nowhere.png']],
  ])('%s', async (_, problems, args, words) => {
    const { code, stdout, stderr } = await serving(refusing(problems), (url) => darkroom(url, ...args))
    expect(code).toBeGreaterThan(0)
    const printed = stdout + stderr
    for (const word of words) expect(printed.split(word), printed).toHaveLength(2)
  })
})

describe('a reader that goes away', () => {
  it('is no fault: nothing is printed after it, and the exit is quiet', async () => {
    const sessions = Array.from({ length: 150 }, (_, i) => ({
      id: `s${i}`,
      status: 'queued',
      createdAt: '2026-01-01T00:00:00.000Z',
      waiting: 'x'.repeat(4000),
      input: {},
      progress: null,
      endedAt: null,
    }))
    const handler: Handler = (request, response) => answerJson(response, request.url === '/v1/health' ? health : { sessions, next: null })
    await serving(handler, async (url) => {
      const env = { PATH: process.env['PATH'] ?? '', DARKROOM_URL: url, DARKROOM_DATA: folder }
      const command = `"${process.execPath}" "${join(root, 'bin', 'darkroom.mjs')}" sessions`
      const shell = spawn('sh', ['-c', `{ ${command}; echo "status $?" >&2; } | head -n 1`], { env, stdio: ['ignore', 'pipe', 'pipe'] })
      let [out, err] = ['', '']
      shell.stdout.on('data', (bytes) => (out += String(bytes)))
      shell.stderr.on('data', (bytes) => (err += String(bytes)))
      await new Promise((resolve) => shell.once('close', resolve))
      expect(out).toMatch(/^SESSION +STATUS +SUBMITTED\s*\n$/)
      expect(err).toBe('status 0\n')
    })
  })

  it('a disk that is full is one', async () => {
    const handler: Handler = (request, response) =>
      answerJson(response, request.url === '/v1/health' ? health : { sessions: [], next: null })
    const err = await serving(handler, (url) => {
      const env = { PATH: process.env['PATH'] ?? '', DARKROOM_URL: url, DARKROOM_DATA: folder }
      const shell = spawn(
        'sh',
        ['-c', `"${process.execPath}" "${join(root, 'bin', 'darkroom.mjs')}" sessions >/dev/full; echo "status $?" >&2`],
        { env, stdio: ['ignore', 'ignore', 'pipe'] },
      )
      let text = ''
      shell.stderr.on('data', (bytes) => (text += String(bytes)))
      return new Promise<string>((resolve) => shell.once('close', () => resolve(text)))
    })
    expect(err).toMatch(/^error: .*ENOSPC.*\nstatus 1\n$/)
  })
})

it('Ctrl-C while a workflow runs leaves it, and says how to go on', async () => {
  const running = { id: 'x', status: 'running', endedAt: null }
  const handler: Handler = (request, response) => {
    if (request.url === '/v1/health') return answerJson(response, health)
    if (request.url?.startsWith('/v1/workflows'))
      return answerJson(response, { inputSchema: { properties: { model: { type: 'string' } } } })
    if (request.url?.endsWith('/events'))
      return response
        .writeHead(200, { 'Content-Type': 'text/event-stream' })
        .write('event: progress\ndata: {"fraction":0.1,"step":"inference.denoise","stage":"run"}\n\n')
    answerJson(response, running)
  }
  await serving(handler, async (url) => {
    const command = start(['run', 'image-generation', 'model=1.5'], { DARKROOM_URL: url, DARKROOM_DATA: folder })
    await command.until(/denoise/)
    command.process.kill('SIGINT')
    const { code, stdout, stderr } = await command.ended
    expect({ code, stdout }).toEqual({ code: 130, stdout: '' })
    expect(stderr).toMatch(/the session goes on: `darkroom show x --follow`.*\n$/)
  })
})

describe('the input of run', () => {
  it.each([
    [
      ['model=1.5', 'prompt=7', 'steps=20', 'seed=12345678901234567890'],
      { model: '1.5', prompt: '7', steps: 20, seed: '12345678901234567890' },
    ],
    [['model=a,b:c=d', 'prompt=true', 'cond={"a": 1}', 'other=text'], { model: 'a,b:c=d', prompt: 'true', cond: { a: 1 }, other: 'text' }],
  ])('%j', async (args, input) => {
    let sent = ''
    const handler: Handler = (request, response) => {
      if (request.url === '/v1/health') return answerJson(response, health)
      if (request.url?.startsWith('/v1/workflows'))
        return answerJson(response, {
          inputSchema: { properties: { model: { type: 'string' }, prompt: { type: 'string' }, steps: { type: 'integer' } } },
        })
      request.on('data', (bytes) => (sent += String(bytes)))
      request.on('end', () => response.writeHead(422, { 'Content-Type': 'application/problem+json' }).end('{}'))
    }
    await serving(handler, (url) => darkroom(url, 'run', 'image-generation', ...args))
    expect((JSON.parse(sent) as { input: unknown }).input).toEqual(input)
  })

  it.each([
    [['steps=1', 'steps=2'], /steps stands twice/],
    [['=1'], /must be like steps=20/],
  ])('%j is used wrongly', async (args, words) => {
    expect(await run(['run', 'x', ...args])).toMatchObject({ code: 2, stderr: expect.stringMatching(words) as string })
  })
})
