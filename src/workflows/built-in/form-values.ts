/** Values of a form for pictures that several of its parts have. */
import { z } from 'zod'

/** A picture has at most 2048² pixels. */
export const maxPixels = 4_194_304
/** Pixels of a side that a client may ask for. */
export const side = z.int().min(64, 'must be at least 64').max(4096, 'must be at most 4096').multipleOf(8, 'must be a multiple of 8')

/**
 * What every tokenizer, PNG text chunk and log can hold: no control characters but line breaks and tabs, no half of a
 * surrogate pair.
 */
export const Prompt = z
  .string()
  .max(8000, 'must be at most 8,000 characters')
  .regex(/^(?:[^\p{Cc}\p{Cs}]|[\t\n\r])*$/u, 'must be text without control characters')
