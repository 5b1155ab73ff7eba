# @scope: hash
# A cursor is part of what a stream is asked for, so it is part of its name.
# Vary: Last-Event-ID says the same, but puts all cursors of a channel under one
# hash, as variants to be searched, and collapses only when the answer is known.

if (req.http.Headwater-Path == "stream" && req.http.Last-Event-ID) {
  # Without the mark between them a host's end and a cursor's start could be one text.
  set req.hash += "#";
  set req.hash += req.http.Last-Event-ID;
}
