/** The commands that make a picture of another one, and the options of `generate` that do so with what it draws. */
import { Option, type Command } from 'commander'
import { Conversion, formats, qualities } from '../domains/postprocessing/settings.ts'
import { maxSeed } from '../domains/values.ts'
import { bytes, decimal, leaning, whole } from './arguments.ts'

/** @param client makes a command that is a client of the API */
export function addPictureCommands(client: (name: string, summary: string) => Command): void {
  const ofPicture = (name: string, summary: string): Command =>
    client(name, summary)
      .argument('<file>', 'a picture, or the id of one')
      .option('--out <path>', 'folder, or a file; default: the current folder')
  ofPicture('enhance', 'remove noise, spread levels, change colours, sharpen; measured before and after')
    .addOption(new Option('--quality <name>', 'named settings; default where no other is said: standard').choices([...qualities]))
    .option('--denoise <x>', '0 to 1', decimal)
    .option('--auto-levels <x>', '0 to 1', decimal)
    .option('--contrast <x>', '-1 to 1', leaning)
    .option('--temperature <x>', '-1, bluer, to 1, more orange', leaning)
    .option('--saturation <x>', '-1, no colour, to 1', leaning)
    .option('--sharpen <x>', '0 to 1', decimal)
    .option('--grain <x>', 'noise as of film, 0 to 1', decimal)
    .option('--grain-seed <n>', 'the same grain again', whole(0, maxSeed))
    .action(async (file: string, options) => (await import('./picture-verbs.ts')).enhance(file, options))
  ofPicture('convert', 'write a picture in another format')
    .addOption(new Option('--format <format>', 'default: by the ending of --out').choices([...formats]))
    .option('--quality <name|n>', `${qualities.join(', ')} or 1 to 100; default: standard`)
    .option('--max-bytes <size>', 'the most that the file may have, as in 500KiB', bytes)
    .addOption(
      new Option('--metadata <what>', 'texts of its request: all, that of A1111 alone, or none').choices(Conversion.shape.metadata.options),
    )
    .option('--background <colour>', 'under what is transparent, in a JPEG; default: #ffffff')
    .action(async (file: string, options) => (await import('./picture-verbs.ts')).convert(file, options))
  ofPicture('faces', 'restore the faces of a picture, by a restorer and a detector of yours')
    .option('--restorer <name>', 'default: GFPGANv1.4')
    .option('--detector <name>', 'default: yunet')
    .option('--strength <x>', 'how much of each takes the place of the one that was there, 0 to 1; default: 1', decimal)
    .action(async (file: string, options) => (await import('./picture-verbs.ts')).faces(file, options))
  client('check', 'what policies of content safety say of a picture; exits with 3 where it would be blurred or blocked')
    .argument('<file>', 'a picture, or the id of one')
    .option('--policy <name>', 'the policy that judges; default: those that apply to you')
    .option('--policy-version <n>', 'of that policy, in force or not; default: the one in force', whole(1, 999_999))
    .option('--prompt <text>', 'that rules on prompts look at')
    .action(async (file: string, options) => (await import('./picture-verbs.ts')).check(file, options))
  client('analytics', 'how postprocessing went, with verdicts of policies, and what follows from that')
    .option('--days <n>', 'so many, today the last; default: 7', whole(1, 31))
    .action(async (options) => (await import('./analytics.ts')).show(options))
}

/** Options of `generate`. */
export const withPostprocessing = (generate: Command): Command =>
  generate
    .option('--upscale [factor]', 'enlarge what is drawn; default: as the upscaler is made for, a filter twice', decimal)
    .option('--upscale-by <name>', 'lanczos, bicubic, nearest, or the name of an upscaler; default: lanczos')
    .addOption(
      new Option('--enhance [quality]', 'enhance what is drawn, by named settings; default: standard')
        .choices([...qualities])
        .preset('standard'),
    )
    .addOption(new Option('--format <format>', 'the format of what is saved; default: png').choices([...formats]))
    .option('--max-bytes <size>', 'the most that a file of that format may have, as in 500KiB', bytes)
