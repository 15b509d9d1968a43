/**
 * What happens to pixels. Owns: pictures as files, the texts in them, larger pictures, and what policies say of them.
 * Never touches: sessions.
 */
import { check } from './check.ts'
import { convert } from './convert.ts'
import { enhance } from './enhance.ts'
import { faces } from './faces.ts'
import { keep } from './keep.ts'
import { rejudge } from './rejudge.ts'
import { save } from './save.ts'
import { score } from './score.ts'
import { sheet } from './sheet.ts'
import { upscale } from './upscale.ts'

export { postprocessingError } from './errors.ts'
export { safetyError } from './safety/errors.ts'

export const postprocessing = {
  'postprocessing.check': check,
  'postprocessing.score': score,
  'postprocessing.rejudge': rejudge,
  'postprocessing.save': save,
  'postprocessing.keep': keep,
  'postprocessing.enhance': enhance,
  'postprocessing.convert': convert,
  'postprocessing.faces': faces,
  'postprocessing.sheet': sheet,
  'postprocessing.upscale': upscale,
}
