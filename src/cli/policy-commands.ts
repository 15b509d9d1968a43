/** The commands about policies of content safety. */
import type { Command } from 'commander'
import { whole } from './arguments.ts'

/** @param client makes a command that is a client of the API, under another one or as one of the first */
export function addPolicyCommands(client: (name: string, summary: string, under?: Command) => Command): void {
  const policies = client('policies', 'list the policies of content safety').enablePositionalOptions()
  policies.action(async (options) => (await import('./policies.ts')).list(options))
  const ofPolicy = (name: string, summary: string): Command => client(name, summary, policies).argument('<policy>')
  const numbered = whole(1, 999_999)
  ofPolicy('show', 'show a policy and its changes, or one of its versions')
    .argument('[version]', 'number of the version', numbered)
    .action(async (name: string, number: number | undefined, options) => (await import('./policies.ts')).show(name, number, options))
  ofPolicy('add', 'write the next version of a policy, which does not apply before it is activated')
    .argument('<file>', 'the policy, as JSON')
    .action(async (name: string, file: string, options) => (await import('./policies.ts')).add(name, file, options))
  ofPolicy('try', 'try a version on samples: what it would do, and what it would change')
    .argument('<version>', 'number of the version', numbered)
    .argument('<file>', 'samples, as a JSON list')
    .option('--against <version>', 'compare with this version; default: the one in force', numbered)
    .action(async (name: string, number: number, file: string, options) =>
      (await import('./policies.ts')).tryOut(name, number, file, options),
    )
  ofPolicy('compare', 'show what two versions say otherwise')
    .argument('<from>', 'number of a version', numbered)
    .argument('<to>', 'number of another', numbered)
    .action(async (name: string, from: number, to: number, options) => (await import('./policies.ts')).compare(name, from, to, options))
  ofPolicy('activate', 'have a version apply from now on')
    .argument('<version>', 'number of the version', numbered)
    .action(async (name: string, number: number, options) => (await import('./policies.ts')).activate(name, number, options))
  ofPolicy('rollback', 'have the version before apply again').action(async (name: string, options) =>
    (await import('./policies.ts')).rollBack(name, options),
  )
  ofPolicy('rejudge', 'what it says now of pictures that are kept, against what was done with them; nothing is drawn')
    .argument('[pictures...]', 'ids of the pictures')
    .option('--session <id>', 'in place of them: a session, whose pictures they are, a batch too')
    .option('--version <n>', 'version of the policy; default: the one in force', numbered)
    .option('--anew', 'have the classifiers look at them again; else their stored scores are judged')
    .action(async (name: string, pictures: string[], options) => (await import('./policies.ts')).rejudge(name, pictures, options))
  client('apply', 'have a policy apply to everybody, or to an API key in place of that', policies)
    .argument('<who>', '`default`, or the id of an API key')
    .argument('<policy>', 'its name; `none` takes it away')
    .action(async (who: string, policy: string, options) => (await import('./policies.ts')).apply(who, policy, options))
}
