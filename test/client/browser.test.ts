/** The client as a browser runs it: bundled, in a world that has the interfaces of the web and nothing of Node. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { createContext, runInContext } from 'node:vm'
import { build } from 'esbuild'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type * as Client from '../../src/client/index.ts'
import { root } from '../../src/config.ts'
import { png, sketchOf, startHarness, type Harness } from '../api/harness.ts'

const web = {
  AbortController,
  ReadableStream,
  TextDecoderStream,
  TransformStream,
  URLSearchParams,
  clearTimeout,
  crypto,
  fetch,
  performance,
  setTimeout,
}

let h: Harness
let client: typeof Client
let bundled: string[]
beforeAll(async () => {
  h = await startHarness()
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['src/client/index.ts'],
    bundle: true,
    platform: 'browser',
    format: 'iife',
    globalName: 'client',
    write: false,
    // A link to node_modules is as good as the folder.
    preserveSymlinks: true,
    metafile: true,
  })
  bundled = Object.keys(metafile.inputs).toSorted()
  client = runInContext(`${outputFiles[0]?.text ?? ''}; client`, createContext({ ...web })) as typeof Client
})
afterAll(() => h.stop())

it('holds its own files and the parser of event streams, nothing else', () => {
  const own = readdirSync(join(root, 'src/client')).map((name) => `src/client/${name}`)
  expect(bundled.filter((file) => !file.startsWith('node_modules/eventsource-parser/'))).toEqual(
    own.filter((file) => file !== 'src/client/types.ts').toSorted(),
  )
})

it('submits, follows to the end and fetches the picture', async () => {
  const api = new client.DarkroomClient({ url: h.url })
  const { id } = await api.submit({ workflow: 'sketch', input: sketchOf('in a browser')['input'] as { text: string } })
  const types: string[] = []
  const ending = api.untilEnd(id, (frame) => types.push(frame.kind === 'event' ? frame.type : frame.kind))
  await h.finish(id)
  const session = await ending
  expect(session.status).toBe('succeeded')
  expect(types.filter((type) => type !== 'progress')).toEqual(['session.created', 'step.started', 'step.completed', 'session.succeeded'])
  const [image] = session.output?.images ?? []
  expect(image?.url).toBe(`/v1/artifacts/${image?.sha256}`)
  expect(Buffer.from(await api.artifact(image?.sha256 ?? '')).equals(png)).toBe(true)
})

it('throws the problem of a command that is refused', async () => {
  const api = new client.DarkroomClient({ url: h.url })
  const refused = await api.run('memory-release', { id: 'ffffffff-cuda-00000000.00000000.1' }).catch((error: unknown) => error)
  expect(refused).toBeInstanceOf(client.Problem)
  expect((refused as Client.Problem).document).toMatchObject({ status: 422, code: 'memory.unknown', field: 'input.id' })
})
