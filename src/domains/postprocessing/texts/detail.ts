/** A region that is drawn again, as a client says it and as a session keeps it. */
import { z } from 'zod'
import { Box, Detail, mostDetails, Sha256 } from '../../values.ts'
import type { AskedDetail } from './reading.ts'

const Told = z
  .array(
    Detail.omit({ source: true, width: true, height: true }).extend({
      box: Box.optional(),
      mask: Sha256.optional(),
      size: Detail.pick({ width: true, height: true }),
    }),
  )
  .min(1)
  .max(mostDetails)

export function fromDetail({ source, width, height, ...more }: Detail): AskedDetail {
  return { ...('sha256' in source ? { mask: source.sha256 } : { box: source }), ...more, size: { width, height } }
}

/** @throws ZodError for what is no list of such regions */
export const toDetail = (json: unknown): AskedDetail[] => Told.parse(json) as AskedDetail[]
