/** What would come of a submission, as HTTP shows it. */
import { z } from 'zod'
import { WantedModel } from '../../domains/values.ts'
import type { DryRun } from '../../engine/dry-run.ts'
import { Compatible } from '../../farm/compatible.ts'
import { orNull } from '../view.ts'

const { device, worker, name, precision, offload, peakBytes, totalBytes, seconds } = Compatible.shape

export const DryRunView = z
  .strictObject({
    dryRun: z.literal(true),
    workflow: z.string().meta({ example: 'image-generation@1' }),
    input: z
      .record(z.string(), z.unknown())
      .meta({ description: 'the request made whole; what chance fills in is drawn again by a submit' }),
    items: z
      .int()
      .nullable()
      .meta({ description: 'how many items it has: the rest is said of the first of them; null: it works none off' }),
    needs: z.strictObject({
      lanes: z
        .array(z.enum(['gpu', 'host', 'control']))
        .meta({ description: 'where its steps run: on a device, beside it, as a command to one' }),
      models: z.array(WantedModel).meta({ description: 'models that whoever runs it must have, as far as the request says so' }),
    }),
    devices: z.array(
      z.strictObject({
        device,
        worker,
        name,
        runs: z.boolean().meta({ description: 'whether its steps could run there' }),
        why: z.string().nullable().meta({ description: 'why not, in words' }),
        paused: z.boolean(),
        picture: orNull(z.strictObject({ precision, offload, peakBytes, totalBytes, seconds })).meta({
          description: 'how it is drawn there, with the memory of its largest pass and the seconds of all of them; null: it draws nothing',
        }),
      }),
    ),
    place: orNull(
      z.strictObject({
        queue: z.string().meta({ description: 'where its first step on a device would go' }),
        position: z.int().min(1).meta({ description: '1 is let in next' }),
        startsInS: z.number().nullable().meta({ description: 'about how long until a device begins it; null where that was not measured' }),
        why: z.string().nullable().meta({ description: 'why it would wait; null: it is let in at once' }),
      }),
    ).meta({ description: 'its place among those that wait for a device; null when it waits for none, or none has what it needs' }),
    nowhere: z.string().nullable().meta({ description: 'why none of its steps can run now' }),
    seconds: seconds.meta({ description: 'about how long the network computes for all of it; null where that was not measured' }),
  })
  .meta({ id: 'DryRun' })
export type DryRunView = z.infer<typeof DryRunView>

export const presentDryRun = ({ place, ...rest }: DryRun): DryRunView => ({
  dryRun: true,
  ...rest,
  place: place && {
    queue: place.queue,
    position: place.position,
    startsInS: place.startsInMs === null ? null : place.startsInMs / 1000,
    why: place.why,
  },
})
