/** Classifiers for the fake child, each with its own fault. Discovery reads them as any; the fake reads `fake.json`. */
import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { root } from '../../src/config.ts'
import type { Farm } from './farm.ts'
import { eventually } from './wait.ts'

const own = join(root, 'models', 'darkroom-tiny', 'safety')

/** What a classifier of the fake child does: see `check` in `fake_child.py`; null: its `fake.json` is missing. */
export type Told = { scores?: Record<string, number>; odd?: boolean; fault?: string; answer?: string } | null

export const folderOf = (farm: Pick<Farm, 'folder'>, name: string): string => join(farm.folder, 'models', 'classifiers', name)

export async function writeClassifier(farm: Pick<Farm, 'folder'>, name: string, told: Told): Promise<void> {
  const folder = folderOf(farm, name)
  await mkdir(folder, { recursive: true })
  for (const file of ['config.json', 'preprocessor_config.json']) await copyFile(join(own, file), join(folder, file))
  if (told) await writeFile(join(folder, 'fake.json'), JSON.stringify(told))
  // Last: with it, it is a model.
  await copyFile(join(own, 'model.safetensors'), join(folder, 'model.safetensors'))
}

/** Until the farm lists so many classifiers, each of them hashed or not. */
export const untilListed = (farm: Pick<Farm, 'client'>, names: readonly string[]): Promise<unknown> =>
  eventually('the classifiers are listed', async () => {
    const { models } = (await farm.client.get('/v1/models?kind=classifier&limit=500')).json as { models: { id: string }[] }
    return names.every((name) => models.some(({ id }) => id === name))
  })

/** Writes a version of a policy and activates it. */
export async function enforce(farm: Pick<Farm, 'client'>, name: string, policy: Record<string, unknown>): Promise<number> {
  const added = await farm.client.post('/v1/policies', { name, policy })
  if (added.status !== 201) throw new Error(`policy ${name} → ${added.status} ${added.text}`)
  const { version } = added.json as { version: number }
  const activated = await farm.client.post(`/v1/policies/${name}/activate`, { version })
  if (activated.status !== 200) throw new Error(`activate ${name} → ${activated.status} ${activated.text}`)
  return version
}
