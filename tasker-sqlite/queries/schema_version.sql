-- Whose file it is, the version of its schema, and how many tables it has.
-- No parameters.
SELECT
    (SELECT application_id FROM pragma_application_id),
    (SELECT user_version FROM pragma_user_version),
    (SELECT count(*) FROM sqlite_schema)
