/** Writes `python/darkroom/schema.json`; a part of `npm run format`. */
import { writeFileSync } from 'node:fs'
import { schemaFile, schemaText } from './wire.ts'

writeFileSync(schemaFile, schemaText())
