/** A LoRA that was made here, put into a model folder. */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { whole } from './conversion.ts'
import { modelError } from './errors.ts'

export interface Stored {
  path: string
  bytes: number
}

/**
 * Writes it under `loras` of the folder: it is there whole or not at all. A file of that name with these bytes is as
 * good: a step that was lost after it had written comes again.
 * @throws DarkroomError `model.exists` for one with others, `model.not_stored`
 */
export async function storeLora(folder: string, name: string, content: Uint8Array): Promise<Stored> {
  const path = join(folder, 'loras', `${name}.safetensors`)
  const there = await readFile(path).catch(() => undefined)
  if (there?.equals(content)) return { path, bytes: there.byteLength }
  if (there) throw modelError('exists', `${path} is there already`, { field: 'input.name' })
  try {
    await mkdir(dirname(path), { recursive: true })
  } catch (error) {
    throw modelError('not_stored', `${dirname(path)} cannot be made: ${(error as Error).message}`, { cause: error })
  }
  const { bytes } = await whole(path, async (part) => {
    await writeFile(part, content).catch((error: Error) => {
      throw modelError('not_stored', `${path} cannot be written: ${error.message}`, { cause: error })
    })
    return {}
  })
  return { path, bytes }
}
