// The states of a job, for a person.

export const STATES = {
  waiting: "Waiting",
  running: "Running",
  retrying: "Failed, tries again",
  done: "Done",
  failed: "Failed",
};
