/**
 * What a ControlNet can be shown of an ordinary picture, or of joints: `python/darkroom/preprocess.py` makes it, and
 * `preprocessors.py` there what a network has to see.
 */
import { z } from 'zod'
import { preprocessorTasks } from '../models/verdict.ts'

/** Joints of a figure: nose, neck, and so on in the order of OpenPose's body of 18 (COCO). */
const jointsOfFigure = 18
const Share = z.number().min(0).max(1)
const slope = z.int().min(0).max(2040)

const pose = z.strictObject({
  name: z.literal('pose'),
  people: z
    .array(
      z.array(z.tuple([Share, Share]).nullable()).length(jointsOfFigure, `must be ${jointsOfFigure} joints, null where one is not seen`),
    )
    .min(1)
    .max(32)
    .describe('of each figure its 18 joints as OpenPose numbers them: [x, y] as shares of width and height'),
})
export type People = z.infer<typeof pose>['people']

const named = [
  z
    .strictObject({
      name: z.literal('canny'),
      low: slope.default(100).describe('steepness from which an edge goes on, |dx| + |dy| by Sobel’s operator'),
      high: slope.default(200).describe('steepness at which an edge begins'),
    })
    .refine(({ low, high }) => low <= high, { path: ['low'], message: 'must be at most `high`' }),
  z.strictObject({ name: z.literal('edge'), operator: z.enum(['sobel', 'scharr']).default('sobel') }),
  z.strictObject({ name: z.literal('soft') }),
  z.strictObject({ name: z.literal('tile'), factor: z.int().min(2).max(64).default(8).describe('what is finer than so many pixels goes') }),
  z.strictObject({ name: z.literal('blur'), radius: z.int().min(1).max(256).default(8).describe('pixels') }),
  z.strictObject({ name: z.literal('grey') }),
  z.strictObject({ name: z.literal('invert') }),
  pose,
] as const

/** Those that a network of the operator sees are the last. */
export const preprocessors = [...named.map(({ shape }) => shape.name.value), ...preprocessorTasks] as const

/** Those whose networks no class of transformers is. */
const notHere = ['normal', 'hed', 'pidinet', 'lineart', 'mlsd', 'openpose', 'dwpose']

/** By its name, with its settings; `model`: how a network is named. One of joints, `pose`, needs no picture. */
export const preprocessorWith = <Model extends z.ZodType>(model: Model) =>
  z.discriminatedUnion('name', [...named, z.strictObject({ name: z.enum(preprocessorTasks), model })], {
    error: (issue) =>
      issue.code === 'invalid_union'
        ? `must be one of ${preprocessors.join(', ')}; ${notHere.join(', ')} need networks that Darkroom does not know: ` +
          'make their picture elsewhere, and send it without a `preprocessor`'
        : undefined,
  })

/** Joints as OpenPose writes them: of each figure 18 times x, y and how sure it is, by a canvas or as shares. */
export const OpenPose = z
  .object({
    people: z
      .array(z.object({ pose_keypoints_2d: z.array(z.number()).length(3 * jointsOfFigure, 'must be 18 joints, three numbers each') }))
      .min(1, 'must have a figure'),
    canvas_width: z.number().positive().default(1),
    canvas_height: z.number().positive().default(1),
  })
  .transform(({ people, canvas_width: width, canvas_height: height }): People =>
    people.map(({ pose_keypoints_2d: numbers }) =>
      Array.from({ length: jointsOfFigure }, (_, n) => {
        const [x = 0, y = 0, sure = 0] = numbers.slice(3 * n, 3 * n + 3)
        return sure > 0 ? [x / width, y / height] : null
      }),
    ),
  )
