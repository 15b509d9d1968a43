/** Pictures to begin from, whatever dies on the way; by files, on the command line; and as the judge sees many. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { decode } from 'fast-png'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { readPngTexts, writePng } from '../../src/domains/postprocessing/png.ts'
import type { Receipt } from '../../src/domains/postprocessing/texts/receipt.ts'
import { interpreter } from '../support/child.ts'
import { run } from '../support/command.ts'
import { survivesDrain, survivesKill } from '../support/exactness.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

const slow = 300_000
const prompt = 'a red circle left of a blue square on yellow'

describe('a picture to begin from', () => {
  let farm: Farm
  let folder: string
  let picture: string
  let mask: string
  beforeAll(async () => {
    farm = await startFarm({ workers: 2, real: true })
    folder = await mkdtemp(join(tmpdir(), 'darkroom-pictures-'))
    const [first = ''] = await farm.pictures(await farm.submit({ prompt, seed: 8, steps: 12 }), slow)
    await writeFile(join(folder, 'first.png'), (await farm.client.get(`/v1/artifacts/${first}`)).bytes)
    picture = first
    const right = { create: { width: 64, height: 128, channels: 3 as const, background: 'white' } }
    const painted = await sharp({ create: { width: 128, height: 128, channels: 3, background: 'black' } })
      .composite([{ input: right, left: 64, top: 0 }])
      .webp({ lossless: true })
      .toBuffer()
    await writeFile(join(folder, 'mask.webp'), painted)
    const sent = await farm.client.request('POST', '/v1/artifacts', { headers: { 'Content-Type': 'image/webp' }, body: painted })
    mask = sent.json.sha256 as string
  }, slow)
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true })
    await farm[Symbol.asyncDispose]()
  }, 60_000)

  it.each(['Euler a', 'DPM++ 2M Karras'])('%s: killed in the middle, the picture is the same', { timeout: slow }, (sampler) =>
    survivesKill(farm, { prompt, seed: 21, steps: 32, strength: 0.6, sampler, picture, mask: { source: mask, fill: 'noise' } }),
  )

  it('drained in the middle, the picture is the same', { timeout: slow }, () =>
    survivesDrain(farm, { prompt, seed: 22, steps: 32, strength: 0.6, sampler: 'Euler a', picture }),
  )

  it('in two passes, killed in the second: the picture is the same', { timeout: slow }, async () => {
    const input = { prompt, seed: 23, steps: 6, sampler: 'Euler a', hires: { steps: 24, strength: 0.6 } }
    const undisturbed = await farm.pictures(await farm.submit(input), slow)
    const id = await farm.submit(input)
    // The first pass has six calls.
    const { worker } = await farm.untilCall(id, 10, slow)
    await worker.kill()
    expect(await farm.pictures(id, slow)).toEqual(undisturbed)
    const attempts = (await farm.receipt(id)).steps.filter(({ step }) => step === 'inference.denoise').map((step) => step.attempts)
    expect(attempts[0]?.map(({ end }) => end)).toEqual(['completed'])
    expect(attempts[1]?.map(({ end }) => end)).toEqual(['lost', 'completed'])
    expect(attempts[1]?.[1]?.resumedFrom?.call).toBeGreaterThanOrEqual(10)
    await farm.addWorker()
  })

  it('with a region drawn again, killed in it: the picture is the same', { timeout: slow }, async () => {
    const detail = [{ box: { left: 40, top: 40, width: 40, height: 40 }, strength: 0.9 }]
    const input = { prompt, seed: 24, steps: 40, sampler: 'Euler a', detail }
    const undisturbed = await farm.pictures(await farm.submit(input), slow)
    const id = await farm.submit(input)
    const isInRegion = async (): Promise<true | undefined> => {
      const denoises = (await farm.receipt(id)).steps.filter(({ step }) => step === 'inference.denoise')
      return denoises.length === 2 && ((await farm.get(id)).progress?.checkpoint ?? 0) > 0 ? true : undefined
    }
    await eventually('the region is drawn', isInRegion, slow)
    const [, region] = (await farm.receipt(id)).steps.filter(({ step }) => step === 'inference.denoise')
    await farm.workers.find(({ ready }) => ready === region?.attempts[0]?.worker)?.kill()
    expect(await farm.pictures(id, slow)).toEqual(undisturbed)
    const [, again] = (await farm.receipt(id)).steps.filter(({ step }) => step === 'inference.denoise')
    expect(again?.attempts.map(({ end }) => end)).toEqual(['lost', 'completed'])
    await farm.addWorker()
  })

  it('verified: what of it is another thing is named', { timeout: slow }, async () => {
    const bytes = (await farm.client.get(`/v1/artifacts/${picture}`)).bytes
    const { data, width, height } = decode(bytes)
    const texts = readPngTexts(bytes)
    const receipt = JSON.parse(texts['darkroom'] ?? '') as Receipt
    const verify = async (name: string, file: Uint8Array) => {
      await writeFile(join(folder, name), file)
      return run(['verify', join(folder, name)], { DARKROOM_URL: farm.client.url })
    }
    const told = (changed: object) =>
      writePng(Uint8Array.from(data), width, height, { ...texts, darkroom: JSON.stringify({ ...receipt, ...changed }) })
    const ofModel = (model: object) => told({ input: { ...receipt.input, model: { ...receipt.input.model, ...model } } })
    expect(await verify('gone.png', await ofModel({ id: 'gone' }))).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/no model "gone"/),
    })
    const other = await verify('other.png', await ofModel({ bodyHash: 'ab'.repeat(32) }))
    expect(other).toMatchObject({ code: 1, stderr: expect.stringMatching(/body hash ababababab….*model\.changed/s) })
    const { build } = receipt.exactness.facts as { build: object }
    const facts = { ...receipt.exactness.facts, build: { ...build, torch: '1.0' } }
    const older = await verify('older.png', await told({ exactness: { key: '01234567', facts } }))
    expect(older).toMatchObject({
      code: 3,
      stdout: expect.stringMatching(
        /^the same 16384 pixels, in a file of other bytes\nits exactness key is 01234567.*\n {2}build\.torch: "1\.0", and here "/,
      ),
    })
    const broken = Buffer.from(bytes)
    const at = broken.indexOf('IDAT') + 40
    broken[at] = (broken[at] ?? 0) ^ 255
    expect(await verify('broken.png', broken)).toMatchObject({
      code: 3,
      stdout: expect.stringMatching(/^differs: the picture cannot be decoded/),
    })
    const plain = await verify('plain.png', await writePng(Uint8Array.from(data), width, height, {}))
    expect(plain).toMatchObject({ code: 1, stderr: expect.stringMatching(/no receipt of Darkroom.*artifact\.untold/s) })
    const request = await run(['request', join(folder, 'other.png'), '--json'])
    expect(JSON.parse(request.stdout)).toMatchObject({ source: 'darkroom', input: { seed: 8, model: 'darkroom-tiny' }, unread: [] })
    expect(await run(['request', join(folder, 'plain.png')])).toMatchObject({ code: 1, stderr: expect.stringMatching(/artifact\.untold/) })
  })

  it('with ControlNets: killed in the middle, the picture is the same', { timeout: slow }, () => {
    const control = [
      { model: 'darkroom-tiny/controlnet-edge', picture, preprocessor: { name: 'canny' }, weight: 0.8 },
      { model: 'darkroom-tiny/controlnet-edge', picture: mask, preprocessor: { name: 'edge' }, mode: 'control', start: 0.2, end: 0.9 },
    ]
    return survivesKill(farm, { prompt, seed: 23, steps: 32, sampler: 'DPM++ 2M', control })
  })

  it('with a ControlNet, by files, on the command line', { timeout: slow }, async () => {
    const generate = (...args: string[]) =>
      run(['generate', prompt, '--steps', '4', '--seed', '41', '--control-model', 'darkroom-tiny/controlnet-edge', ...args], {
        DARKROOM_URL: farm.client.url,
      })
    const [edges, figures] = [join(folder, 'edges.png'), join(folder, 'figures.png')]
    expect(await generate('--control', join(folder, 'first.png'), '--preprocessor', 'canny', '--out', edges)).toMatchObject({
      code: 0,
      stdout: `saved ${edges}\n`,
    })
    const joints = Array.from({ length: 18 }, (_, n) => [30 + 3 * n, 20 + 5 * n, n === 4 ? 0 : 0.9]).flat()
    await writeFile(
      join(folder, 'joints.json'),
      JSON.stringify({ people: [{ pose_keypoints_2d: joints }], canvas_width: 128, canvas_height: 128 }),
    )
    const posed = await generate(
      '--control',
      join(folder, 'joints.json'),
      '--preprocessor',
      'pose',
      '--control-weight',
      '0.5',
      '--out',
      figures,
    )
    expect(posed).toMatchObject({ code: 0 })
    expect(decode(await readFile(figures)).data).not.toEqual(decode(await readFile(edges)).data)
    await writeFile(join(folder, 'few.json'), JSON.stringify({ people: [{ pose_keypoints_2d: [1, 2, 3] }] }))
    const few = await generate('--control', join(folder, 'few.json'), '--preprocessor', 'pose')
    expect(few).toMatchObject({ code: 1, stderr: expect.stringMatching(/few\.json.*[\s\S]*18 joints/) as string })
    expect(await generate()).toMatchObject({ code: 1, stderr: expect.stringContaining('--control') as string })
  })

  it('by its file, with a mask by its own, on the command line', { timeout: slow }, async () => {
    const out = join(folder, 'made.png')
    const given = ['--picture', join(folder, 'first.png'), '--mask', join(folder, 'mask.webp'), '--strength', '1', '--fill', 'blur']
    const ended = await run(['generate', prompt, ...given, '--steps', '12', '--seed', '40', '--out', out], {
      DARKROOM_URL: farm.client.url,
    })
    expect(ended).toMatchObject({ code: 0, stdout: `saved ${out}\n` })
    const [before, after] = [decode(await readFile(join(folder, 'first.png'))), decode(await readFile(out))]
    const changed = [...after.data.keys()].filter((i) => after.data[i] !== before.data[i]).map((i) => Math.floor(i / 3) % 128)
    expect(changed.length).toBeGreaterThan(1000)
    expect(Math.min(...new Set(changed))).toBeGreaterThanOrEqual(64)
  })

  it('on the command line is refused as over HTTP', { timeout: slow }, async () => {
    const generate = (...args: string[]) => run(['generate', prompt, ...args], { DARKROOM_URL: farm.client.url })
    await writeFile(join(folder, 'drawing.svg'), '<svg xmlns="http://www.w3.org/2000/svg"/>')
    const svg = await generate('--picture', join(folder, 'drawing.svg'))
    expect(svg).toMatchObject({ code: 1, stderr: expect.stringMatching(/SVG.*[\s\S]*Send a PNG/) as string })
    const none = await generate('--picture', join(folder, 'none.png'))
    expect(none).toMatchObject({ code: 1, stderr: expect.stringContaining('none.png') as string })
    const unmasked = await generate('--picture', picture, '--blur-mask', '3')
    expect(unmasked).toMatchObject({ code: 1, stderr: expect.stringContaining('--mask') as string })
  })
})

/** Some of what `npm run test:judged` counts in more pictures: tests, and what they print of those they looked at. */
const judged: [claim: string, file: string, tests: string, count: number, prints: RegExp][] = [
  ['things where they were, and nothing of them at full strength', 'pictures', 'half_strength or full_strength_the', 40, /"things": 60/],
  ['new things behind masks, and all else as it was', 'pictures', 'behind_a_mask', 40, /"pictures": 40/],
  ['the edges that a ControlNet was shown', 'controlnet', 'has_the_edges', 20, /"pictures": 20/],
  ['less colour by the weight of pastel, and two styles together', 'adapters', 'how_much_of_a_style', 8, /"scenes": 8/],
  ['the last colour of 300 tokens, and of two chunks the heavier one', 'prompts', '300_tokens or heavier_one', 30, /"heavier"/],
  ['the scene again in pictures of twice the side', 'passes', 'doubles', 24, /"doubled": 24/],
]

it.each(judged)('the judge finds %s', { timeout: 1_800_000 }, async (_, file, tests, count, prints) => {
  const args = ['-m', 'pytest', '-q', '-s', `python/tests/test_${file}.py`, '-k', tests, '--judged', String(count)]
  // What falls short ends it with another exit status; these are the figures that it was judged by.
  const { stdout } = await promisify(execFile)(interpreter(), args, { cwd: root })
  expect(stdout).toMatch(prints)
})
