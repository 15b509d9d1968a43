import { z } from 'zod'
import { sheetOf } from '../../artifacts/sheet.ts'
import { apiError } from '../../errors.ts'
import { operation } from '../operation.ts'
import { ImageRef, Sha256 } from '../values.ts'
import { writePng } from './png.ts'

/** Cells of a sheet at most, and pixels of a cell's side. */
const maxCells = 400
const side = z.int().min(32).max(256)

const Given = z.strictObject({
  session: z.string().min(1).max(64).describe('whose pictures'),
  columns: z.int().min(1).max(maxCells).optional().describe('default: the values of a grid’s last field, else about as many as rows'),
  side: side.default(192).describe('pixels of a cell’s side'),
  from: z.int().min(0).default(0).describe('the first cell: a sheet has 400 at most'),
})

/** Pictures of a session on one: an item that has none is an empty cell, so that a grid stays one. */
export const sheet = operation({
  lane: 'host',
  attempts: 3,
  timeoutMs: 600_000,
  input: z.strictObject({ pictures: z.array(Sha256.nullable()).min(1).max(maxCells), columns: z.int().min(1), side }),
  output: ImageRef.omit({ seed: true }).meta({ id: 'ContactSheet' }),
  async run({ pictures, columns, side: pixels }, tools) {
    const read = async (cell: number): Promise<Uint8Array | undefined> => {
      tools.signal.throwIfAborted()
      tools.progress({ stage: 'run', call: cell, calls: pictures.length })
      const sha256 = pictures[cell]
      return typeof sha256 === 'string' ? tools.artifacts.read(sha256) : undefined
    }
    const { rgb, width, height } = await sheetOf(pictures.length, read, { columns, side: pixels })
    const png = await writePng(rgb, width, height, {})
    return { sha256: await tools.keep(png, 'image'), mediaType: 'image/png' as const, width, height, bytes: png.byteLength }
  },
  command: {
    title: 'Make a contact sheet of a session’s pictures',
    description:
      'The pictures of a session, or of the items of a batch, on one: at most 400, in their order. Cells without a picture stay empty.',
    input: Given,
    async resolve({ session, columns, side: pixels, from }, catalogue) {
      const results = await catalogue.results(session, 'session')
      const pictures = results.pictures.slice(from, from + maxCells)
      if (!pictures.some((sha256) => sha256 !== null))
        throw apiError('invalid', `session ${session} has no pictures${from > 0 ? ` from cell ${from} on` : ' yet'}`, { field: 'session' })
      for (const sha256 of pictures) if (sha256 !== null) await catalogue.picture(sha256, 'session')
      return { pictures, columns: columns ?? results.columns ?? Math.ceil(Math.sqrt(pictures.length)), side: pixels }
    },
    route: {
      method: 'post',
      path: '/sessions/{id}/sheet',
      params: { id: 'session' },
      body: 'MakeContactSheet',
      isBodyRequired: false,
      answers: 'The contact sheet',
    },
  },
})
