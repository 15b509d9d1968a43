/** What happens to pixels. Owns: pictures as files and the texts in them. Never touches: the device, sessions. */
import './errors.ts'
import { operation } from '../operation.ts'
import { save } from './operations.ts'
import { SaveInput, SaveOutput } from './schema.ts'

export const postprocessing = {
  'postprocessing.save': operation({ run: save, input: SaveInput, output: SaveOutput, lane: 'host', attempts: 3, timeoutMs: 600_000 }),
}
