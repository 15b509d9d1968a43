/** Where no watch tells of a model folder, the slow look at everything sees what has come, has changed and has gone. */
import { appendFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { DarkroomClient } from '../../src/client/index.ts'
import { startFarm } from '../support/farm.ts'
import { safetensors } from '../support/headers.ts'
import { quickTimes } from '../support/times.ts'
import { eventually } from '../support/wait.ts'
import { hasNoWatches } from '../support/watches.ts'

const lora = { 'lora_unet_a.lora_down.weight': ['F16', [4, 32]], 'lora_unet_a.lora_up.weight': ['F16', [32, 4]] } as const
const rescanMs = 1000

it.runIf(hasNoWatches)('files of a folder that cannot be watched are seen when they come, change and go', async () => {
  await using farm = await startFarm({ workers: 0, unwatched: true, times: { ...quickTimes, rescanMs } })
  const root = join(farm.folder, 'models')
  const client = new DarkroomClient({ url: farm.client.url })
  const state = async (name: string): Promise<string | undefined> => {
    const { models, shelves } = await client.models({ name })
    expect(shelves).toMatchObject([{ problems: [] }])
    return models.map(({ id, kind, status }) => [id, kind, status].join(' ')).join(', ')
  }
  await eventually('the first look', async () => (await client.models()).total === 1)
  expect(await readFile(join(farm.folder, 'api-0.log'), 'utf8')).toContain('a model folder is not watched')

  const { head, body } = safetensors({ ...lora })
  // In a folder that was there, and in a new one.
  for (const name of ['plain', 'sub/below']) {
    await mkdir(join(root, 'loras', name, '..'), { recursive: true })
    await writeFile(join(root, 'loras', `${name}.safetensors`), Buffer.concat([head, Buffer.alloc(body)]))
  }
  await eventually('new files', async () => (await state('plain')) === 'plain lora unsupported' && (await state('below')) !== '')
  const before = await client.model('plain')
  await appendFile(join(root, 'loras', 'plain.safetensors'), 'x')
  await eventually('a changed one', async () => (await client.model('plain')).status === 'broken')
  expect((await client.model('plain')).bytes).toBe(before.bytes + 1)
  await rm(join(root, 'loras', 'sub'), { recursive: true })
  await eventually('one that is gone', async () => (await state('below')) === '')
  await rm(join(root, 'loras', 'plain.safetensors'))
  await eventually('the last one', async () => (await client.models()).total === 1)
})
