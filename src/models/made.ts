/** A model that is made of several files: which part comes from where. */
import { z } from 'zod'
import { lookAgain, stateOf, type FileState, type Found } from './found.ts'

/** Absolute. */
const Path = z.string().regex(/^\/[^\0]*$/)

/**
 * A part of a model by its name in a diffusers folder (`unet`, `text_encoder_2`, `tokenizer`), '' for what lies beside
 * the parts there, `model_index.json`. `folder` has its configuration, and its weights too unless these are the tensors
 * of one file whose names begin with `prefix`.
 */
export const ModelPart = z.strictObject({
  name: z.string(),
  folder: Path,
  weights: z.strictObject({ path: Path, prefix: z.string() }).nullable(),
})
export type ModelPart = z.infer<typeof ModelPart>

/** A file that decides a model's pictures, `path` absolute; `role` is the same on every host: `vae/config.json`. */
export interface MadeOf extends FileState {
  role: string
}

/** What a model is made of that is no diffusers folder. `files`: all of them, the model's own first. */
export interface Made {
  parts: ModelPart[]
  files: MadeOf[]
}

/** Whether the files of an entry, and all that it is made of, are still those that it is of. */
export async function isUnchanged({ path, files, state, made }: Pick<Found, 'path' | 'files' | 'state'> & { made?: Made | null }) {
  if ((await lookAgain(path, files)) !== state) return false
  return !made || (await lookAgain(path, made.files)) === stateOf(made.files)
}
