/** `darkroom workflows | workflows reload`: what sessions can be of, and the folder of one's own. */
import { connectApi } from './connection.ts'
import type { Output } from './sessions.ts'
import { Exit, fields, inline, say, sayJson, table, whisper } from './terminal.ts'

export async function list(options: Output): Promise<void> {
  const workflows = await (await connectApi(options)).workflows()
  if (options.json) return sayJson({ workflows })
  const rows = workflows.map(({ name, version, source, title }) => [`${name}@${version}`, source?.file ?? '', title])
  say(table(['WORKFLOW', 'MODULE', ''], rows))
}

export async function show(name: string, options: Output): Promise<void> {
  const workflow = await (await connectApi(options)).workflow(name)
  if (options.json) return sayJson(workflow)
  const { version, title, description, source, diagram } = workflow
  say(
    fields(
      [
        ['workflow', `${workflow.name}@${version}`],
        ['title', title],
        ['description', description || null],
        ['module', source && `${source.file}, content ${source.sha256}`],
        ['input', JSON.stringify(workflow.inputSchema['properties'] ?? {})],
      ],
      14,
    ),
  )
  say(`\n${diagram}`)
}

/** @throws Exit 1 when something of the folder was refused */
export async function reload(options: Output): Promise<void> {
  const report = await (await connectApi(options)).reloadWorkflows()
  if (options.json) sayJson(report)
  else {
    for (const workflow of report.loaded) say(inline(workflow))
    for (const { error } of report.refused) whisper(`refused: ${inline(error.message)}\n  ${inline(`${error.remedy} (${error.code})`)}`)
  }
  if (report.refused.length > 0) throw new Exit(1)
}
