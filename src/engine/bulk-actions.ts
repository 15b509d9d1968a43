/** What is done to many sessions at once. */
export const bulkActions = ['pause', 'resume', 'cancel', 'delete', 'tag'] as const
export type BulkAction = (typeof bulkActions)[number]

export const bulkStates = ['running', 'stopped', 'done'] as const
