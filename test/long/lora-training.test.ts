/** A LoRA through the product: learned, killed in the middle, the same bytes, and drawn with. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { DarkroomClient, type Session } from '../../src/client/index.ts'
import { root } from '../../src/config.ts'
import { run } from '../support/command.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

const slow = 240_000
let farm: Farm
let folder: string
let models: string

/** A pale circle on a pale background: colours that darkroom-tiny draws in full. */
const circle = (colour: string, background: string): Promise<Buffer> =>
  sharp(
    Buffer.from(
      `<svg width="64" height="64"><rect width="64" height="64" fill="${background}"/><circle cx="32" cy="32" r="18" fill="${colour}"/></svg>`,
    ),
  )
    .png()
    .toBuffer()
const scenes = [
  ['#f09696', '#96a0eb', 'a red circle on a blue background'],
  ['#96d7a0', '#ffeba0', 'a green circle on a yellow background'],
  ['#96a0eb', '#f09696', 'a blue circle on a red background'],
] as const

beforeAll(async () => {
  models = await mkdtemp(join(tmpdir(), 'darkroom-models-'))
  const settings = { DARKROOM_CHECKPOINT_CALLS: '1', DARKROOM_MODELS: [join(root, 'models'), models].join(delimiter) }
  farm = await startFarm({ real: true, workers: 2, settings })
  folder = join(farm.folder, 'pale')
  await mkdir(folder)
  for (const [i, [colour, background, caption]] of scenes.entries()) {
    await writeFile(join(folder, `${i}.png`), await circle(colour, background))
    await writeFile(join(folder, `${i}.txt`), `${caption}\n`)
  }
}, slow)
afterAll(async () => {
  await farm[Symbol.asyncDispose]()
  await rm(models, { recursive: true })
})

const examples = async (): Promise<unknown[]> => {
  const made = []
  for (const [i, [, , caption]] of scenes.entries()) {
    const file = await readFile(join(folder, `${i}.png`))
    const { sha256 } = await new DarkroomClient({ url: farm.client.url }).upload(file)
    made.push({ picture: sha256, caption })
  }
  return made
}

const asked = { model: 'darkroom-tiny', width: 64, height: 64, steps: 30, learningRate: 0.01, seed: 3, sample: { steps: 4 } }
const submitted = async (
  input: Record<string, unknown>,
): Promise<{ status: number; json: Session & { code?: string; problems?: { field: string }[] } }> => {
  const { status, json } = await farm.client.post('/v1/sessions', { workflow: 'lora-training', input })
  return { status, json: json as Session }
}

it('is learned on, killed in the middle, by another worker to the same bytes; and changes what is drawn', { timeout: slow }, async () => {
  const pictures = await examples()
  const bytes: Buffer[] = []
  for (const name of ['undisturbed', 'killed']) {
    const { json } = await submitted({ ...asked, name, examples: pictures })
    if (name === 'killed') {
      const { call, worker } = await eventually(
        'a checkpoint',
        async () => {
          const { steps } = await farm.receipt(json.id)
          const attempt = steps.find(({ step }) => step === 'inference.train')?.attempts.at(-1)
          const { progress } = await farm.get(json.id)
          return (progress?.checkpoint ?? 0) >= 5 && attempt && { call: progress?.checkpoint, worker: farm.worker(attempt.worker) }
        },
        slow,
      )
      await worker.kill()
      const { output } = await farm.until(json.id, 'succeeded', slow)
      const [lost, last] = await farm.attempts(json.id, 'inference.train')
      expect(lost).toMatchObject({ end: 'lost' })
      expect(last?.resumedFrom?.call).toBeGreaterThanOrEqual(call ?? 0)
      expect(output).toMatchObject({ adapter: { name }, images: [{ width: 64, height: 64 }] })
    } else await farm.until(json.id, 'succeeded', slow)
    const { output } = await farm.get(json.id)
    bytes.push(await readFile((output as unknown as { adapter: { path: string } }).adapter.path))
  }
  const withoutName = (file: Buffer | undefined): Buffer | undefined => file?.subarray(8 + Number(file.readBigUInt64LE(0)))
  expect(withoutName(bytes[1])?.equals(withoutName(bytes[0]) ?? Buffer.alloc(0))).toBe(true)

  await eventually('the LoRA is listed', async () => {
    const { json } = await farm.client.get('/v1/models?kind=lora')
    return (json as { models: { id: string }[] }).models.some(({ id }) => id === 'undisturbed')
  })
  const request = { prompt: 'a red circle on a blue background', width: 64, height: 64 }
  const [own] = await farm.pictures(await farm.submit(request), slow)
  const [learned] = await farm.pictures(await farm.submit({ ...request, adapters: [{ model: 'undisturbed' }] }), slow)
  expect(learned).not.toBe(own)
})

it('is refused where it cannot be meant, by field', async () => {
  const [first] = await examples()
  for (const [field, input] of [
    ['input.name', { ...asked, name: 'pastel', examples: [first] }],
    ['input.name', { ...asked, name: '../up', examples: [first] }],
    ['input.examples', { ...asked, name: 'none', examples: [] }],
    ['input.examples.0.picture', { ...asked, name: 'none', examples: [{ picture: '0'.repeat(64), caption: 'x' }] }],
    ['input.rank', { ...asked, name: 'none', examples: [first], rank: 0 }],
    ['input.learningRate', { ...asked, name: 'none', examples: [first], learningRate: 2 }],
    ['input.model', { ...asked, name: 'none', examples: [first], model: 'nothing' }],
  ] as const) {
    const { status, json } = await submitted(input)
    expect({ field, status }).toEqual({ field, status: 422 })
    expect(JSON.stringify(json)).toContain(`"${field}"`)
  }
})

it('comes from a folder on the command line', { timeout: slow }, async () => {
  const args = [
    '--name',
    'from-a-folder',
    '--size',
    '64x64',
    '--steps',
    '3',
    '--sample',
    'a red circle',
    '--out',
    join(farm.folder, 'sample.png'),
  ]
  const { code, stdout, stderr } = await run(['train', folder, ...args], { DARKROOM_URL: farm.client.url })
  expect(stderr).toContain('3 pictures')
  expect(code).toBe(0)
  expect(stdout).toMatch(/loras\/from-a-folder\.safetensors, loss [\d.]+\nsample: .*sample\.png\n/)
  const lacking = await run(['train', farm.folder, '--name', 'x'], { DARKROOM_URL: farm.client.url })
  expect(lacking).toMatchObject({ code: 1, stderr: expect.stringContaining('sample.txt cannot be read') as string })
})
