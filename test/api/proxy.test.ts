/**
 * nginx in front of the API, started with docs/nginx.conf: only its ports, its certificate and the folders that a user
 * may write to are others. Runs where nginx and openssl are installed.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { request as httpsRequest } from 'node:https'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { scopes } from '../../src/api-keys.ts'
import { root } from '../../src/config.ts'
import { eventually } from '../support/wait.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

function programOf(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']
  return folders
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}
const nginx = programOf('nginx')
const openssl = programOf('openssl')
const missing = [...(nginx ? [] : ['nginx']), ...(openssl ? [] : ['openssl'])]
if (missing.length > 0) process.stderr.write(`test/api/proxy.test.ts: ${missing.join(' and ')} not found; docs/nginx.conf is not tried\n`)

const name = 'darkroom.example'

interface Reply {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
  json: Record<string, unknown>
  /** ms until the headers came. */
  ms: number
}

describe.skipIf(missing.length > 0)('docs/nginx.conf', () => {
  let h: Harness
  let folder: string
  let proxy: ChildProcess
  let port = 0
  let words = ''

  beforeAll(async () => {
    h = await startHarness({ allowedHosts: [name] })
    folder = await mkdtemp(join(tmpdir(), 'darkroom-nginx-'))
    port = await freePort()
    const [certificate, key] = [join(folder, 'certificate.pem'), join(folder, 'key.pem')]
    const subject = ['-subj', `/CN=${name}`, '-days', '2', '-nodes', '-newkey', 'rsa:2048']
    execFileSync(openssl ?? '', ['req', '-x509', ...subject, '-keyout', key, '-out', certificate], { stdio: 'ignore' })
    const changes: [string, string][] = [
      ['server 127.0.0.1:4780;', `server ${new URL(h.url).host};`],
      ['listen 443 ssl;', `listen 127.0.0.1:${port} ssl;`],
      ['/etc/ssl/darkroom.example.pem', certificate],
      ['/etc/ssl/darkroom.example.key', key],
    ]
    let site = await readFile(join(root, 'docs/nginx.conf'), 'utf8')
    for (const [from, to] of changes) {
      expect(site).toContain(from)
      site = site.replace(from, to)
    }
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder}/${kind};`)
    const whole = `pid ${folder}/pid; error_log stderr; daemon off; events {} http { access_log off; ${temporary.join(' ')} ${site} }`
    await writeFile(join(folder, 'whole.conf'), whole)
    proxy = spawn(nginx ?? '', ['-p', folder, '-c', join(folder, 'whole.conf')], { stdio: ['ignore', 'ignore', 'pipe'] })
    proxy.stderr?.on('data', (chunk: Buffer) => (words += chunk.toString()))
    await eventually('nginx listens', async () => {
      if (proxy.exitCode !== null) throw new Error(`nginx ended: ${words}`)
      return isListening(port)
    })
  })
  afterAll(async () => {
    if (proxy.exitCode === null) {
      const gone = once(proxy, 'exit')
      proxy.kill('SIGTERM')
      await gone
    }
    await h.stop()
    await rm(folder, { recursive: true, force: true })
  })

  const send = (method: string, path: string, headers: Record<string, string> = {}, body?: unknown): Promise<Reply> =>
    new Promise((resolve, reject) => {
      const startedAt = performance.now()
      const type = body === undefined ? {} : { 'Content-Type': 'application/json' }
      const target = { host: '127.0.0.1', port, method, path, rejectUnauthorized: false, agent: false } as const
      const sent = httpsRequest({ ...target, headers: { Host: `${name}:${port}`, ...type, ...headers } }, (response) => {
        const ms = performance.now() - startedAt
        let text = ''
        response.on('data', (chunk: Buffer) => (text += chunk.toString()))
        response.on('error', reject)
        response.on('end', () => {
          const isJson = response.headers['content-type']?.includes('json') === true
          const json = isJson ? (JSON.parse(text) as Record<string, unknown>) : {}
          resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json, ms })
        })
      })
      sent.on('error', reject)
      sent.end(body === undefined ? undefined : JSON.stringify(body))
    })
  const keyOf = (client: { key: string }): Record<string, string> => ({ Authorization: `Bearer ${client.key}` })

  it('refuses who has no key, though the API would let this machine’s user in', async () => {
    expect((await h.client.get('/v1/sessions')).status).toBe(200)
    for (const path of ['/v1/sessions', '/v1/health', '/docs', '/admin/queues'])
      expect((await send('GET', path)).json).toMatchObject({ status: 403, code: 'api.forwarded_refused' })
    expect((await send('GET', '/v1/sessions', { Authorization: 'Bearer none' })).json).toMatchObject({ status: 401 })
    expect((await send('POST', '/v1/sessions', {}, sketchOf('no key'))).status).toBe(403)
  })

  it('lets in who has one: submits, waits, the page of the same name, and no other', async () => {
    const headers = keyOf(await h.withKey(...scopes))
    const origin = { Origin: `https://${name}:${port}`, 'Sec-Fetch-Site': 'same-origin' }
    const submitted = await send('POST', '/v1/sessions', { ...headers, ...origin }, sketchOf('through nginx'))
    expect(submitted.status).toBe(202)
    const waited = await send('POST', '/v1/sessions', { ...headers, Prefer: 'wait=1' }, sketchOf('waits'))
    expect([waited.status, waited.headers['preference-applied']]).toEqual([202, 'wait=1'])
    expect((await send('GET', '/v1/sessions', { ...headers, Origin: 'https://evil.example' })).json).toMatchObject({ status: 403 })
    expect((await send('GET', '/v1/sessions', { ...headers, Host: 'evil.example' })).json).toMatchObject({ status: 421 })
    const large = await send('POST', '/v1/sessions', headers, sketchOf('x'.repeat(2 * 1024 * 1024)))
    expect(large.status).toBe(413)
  })

  it('passes events on as they come', async () => {
    const client = await h.withKey(...scopes)
    const { id } = (await client.post('/v1/sessions', sketchOf('followed'))).json
    const askedAt = performance.now()
    const followed = send('GET', `/v1/sessions/${id}/events`, keyOf(client))
    await expect.poll(() => h.redis.keys('*slots:streams*')).toHaveLength(1)
    await sleep(300)
    const finishedAt = performance.now()
    await h.finish(id)
    const { headers, text, ms } = await followed
    expect(headers['content-type']).toBe('text/event-stream')
    expect(askedAt + ms).toBeLessThan(finishedAt)
    expect(text).toContain('event: session.succeeded')
  })
})

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => (socket.destroy(), resolve(true)))
    socket.once('error', () => resolve(false))
  })
}
