-- What the client said about how a run answers besides its instructions, as JSON: its own tools, and options for the
-- model. NULL where it said nothing.
ALTER TABLE runs ADD COLUMN terms TEXT;
