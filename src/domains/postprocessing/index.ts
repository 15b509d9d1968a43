/** What happens to pixels. Owns: pictures as files and the texts in them. Never touches: the device, sessions. */
import { save } from './save.ts'

export const postprocessing = { 'postprocessing.save': save }
