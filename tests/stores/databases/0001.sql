SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.artifact (
    id integer NOT NULL,
    study integer NOT NULL,
    address text NOT NULL,
    name text NOT NULL,
    path text NOT NULL,
    sha256 character varying(64) NOT NULL,
    bytes bigint NOT NULL,
    created double precision NOT NULL
);
CREATE SEQUENCE public.artifact_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.artifact_id_seq OWNED BY public.artifact.id;
CREATE TABLE public.attempt (
    study integer NOT NULL,
    trial integer NOT NULL,
    seed integer NOT NULL,
    repeat integer NOT NULL,
    attempt integer NOT NULL,
    started double precision NOT NULL,
    ended double precision,
    cause text,
    seconds double precision NOT NULL,
    worker text NOT NULL,
    CONSTRAINT attempt_lost CHECK (((cause IS NULL) = (ended IS NULL))),
    CONSTRAINT attempt_seconds CHECK (((seconds >= ('-179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision) AND (seconds <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)))
);
CREATE TABLE public.command (
    id integer NOT NULL,
    study integer NOT NULL,
    verb text NOT NULL,
    payload text NOT NULL,
    created double precision NOT NULL
);
CREATE SEQUENCE public.command_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.command_id_seq OWNED BY public.command.id;
CREATE TABLE public.decision (
    id integer NOT NULL,
    study integer NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    reason text NOT NULL,
    details text NOT NULL,
    batch integer NOT NULL,
    created double precision NOT NULL
);
CREATE SEQUENCE public.decision_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.decision_id_seq OWNED BY public.decision.id;
CREATE TABLE public.environment (
    sha256 character varying(64) NOT NULL,
    facts text NOT NULL
);
CREATE TABLE public.layers (
    study integer NOT NULL,
    trial integer NOT NULL,
    seed integer NOT NULL,
    repeat integer NOT NULL,
    attempt integer NOT NULL,
    epoch integer NOT NULL,
    norms text NOT NULL
);
CREATE TABLE public.metric (
    study integer NOT NULL,
    trial integer NOT NULL,
    seed integer NOT NULL,
    repeat integer NOT NULL,
    attempt integer NOT NULL,
    epoch integer NOT NULL,
    name text NOT NULL,
    value double precision NOT NULL,
    CONSTRAINT metric_finite CHECK (((value >= ('-179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision) AND (value <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)))
);
CREATE TABLE public.note (
    id integer NOT NULL,
    study integer NOT NULL,
    kind character varying(12) NOT NULL,
    address text NOT NULL,
    text text NOT NULL,
    created double precision NOT NULL,
    CONSTRAINT note_kind CHECK (((kind)::text = ANY ((ARRAY['note'::character varying, 'tag'::character varying])::text[])))
);
CREATE SEQUENCE public.note_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.note_id_seq OWNED BY public.note.id;
CREATE TABLE public.run (
    study integer NOT NULL,
    trial integer NOT NULL,
    seed integer NOT NULL,
    repeat integer NOT NULL,
    place integer NOT NULL,
    stage character varying(12) NOT NULL,
    state character varying(12) NOT NULL,
    attempt integer NOT NULL,
    value double precision,
    best_epoch integer,
    last_epoch integer,
    reason text NOT NULL,
    error text NOT NULL,
    started double precision,
    ended double precision,
    seconds double precision NOT NULL,
    worker text NOT NULL,
    returned text NOT NULL,
    environment character varying(64),
    CONSTRAINT run_finite CHECK ((((value >= ('-179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision) AND (value <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)) AND ((seconds >= ('-179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision) AND (seconds <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)))),
    CONSTRAINT run_no_value CHECK (((value IS NULL) OR ((state)::text = ANY ((ARRAY['complete'::character varying, 'pruned'::character varying])::text[])))),
    CONSTRAINT run_stage CHECK (((stage)::text = ANY ((ARRAY['search'::character varying, 'confirm'::character varying, 'extra'::character varying])::text[]))),
    CONSTRAINT run_state CHECK (((state)::text = ANY ((ARRAY['queued'::character varying, 'running'::character varying, 'paused'::character varying, 'complete'::character varying, 'pruned'::character varying, 'diverged'::character varying, 'failed'::character varying, 'cancelled'::character varying])::text[]))),
    CONSTRAINT run_value CHECK ((((state)::text <> 'complete'::text) OR (value IS NOT NULL)))
);
CREATE TABLE public.sealed (
    study integer NOT NULL,
    trial integer NOT NULL,
    seed integer NOT NULL,
    repeat integer NOT NULL,
    attempt integer NOT NULL,
    epoch integer NOT NULL,
    name text NOT NULL,
    value double precision NOT NULL,
    CONSTRAINT sealed_finite CHECK (((value >= ('-179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision) AND (value <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)))
);
CREATE TABLE public.study (
    id integer NOT NULL,
    name character varying(100) NOT NULL,
    spec text NOT NULL,
    fingerprint character varying(64) NOT NULL,
    code_hash character varying(64) NOT NULL,
    file text NOT NULL,
    text text NOT NULL,
    state character varying(12) NOT NULL,
    reason text NOT NULL,
    rev integer NOT NULL,
    epoch integer NOT NULL,
    host text,
    pid integer,
    boot_id text,
    started double precision,
    lease_until double precision NOT NULL,
    seconds double precision NOT NULL,
    tell_seq integer NOT NULL,
    fenced integer NOT NULL,
    created double precision NOT NULL,
    updated double precision NOT NULL,
    CONSTRAINT study_seconds CHECK (((seconds >= ('-179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision) AND (seconds <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision))),
    CONSTRAINT study_state CHECK (((state)::text = ANY ((ARRAY['running'::character varying, 'complete'::character varying, 'stopped'::character varying, 'interrupted'::character varying, 'failed'::character varying])::text[])))
);
CREATE SEQUENCE public.study_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.study_id_seq OWNED BY public.study.id;
CREATE TABLE public.trial (
    study integer NOT NULL,
    number integer NOT NULL,
    params text NOT NULL,
    state character varying(12) NOT NULL,
    value double precision,
    sd double precision,
    baseline boolean NOT NULL,
    batch integer NOT NULL,
    history_seq integer NOT NULL,
    tell_seq integer,
    CONSTRAINT trial_finite CHECK ((((value >= ('-179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision) AND (value <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)) AND ((sd >= ('-179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision) AND (sd <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)))),
    CONSTRAINT trial_no_value CHECK (((value IS NULL) OR ((state)::text = ANY ((ARRAY['complete'::character varying, 'pruned'::character varying])::text[])))),
    CONSTRAINT trial_state CHECK (((state)::text = ANY ((ARRAY['queued'::character varying, 'complete'::character varying, 'pruned'::character varying, 'diverged'::character varying, 'failed'::character varying, 'cancelled'::character varying])::text[]))),
    CONSTRAINT trial_told CHECK ((((state)::text = 'queued'::text) = (tell_seq IS NULL))),
    CONSTRAINT trial_value CHECK ((((state)::text <> 'complete'::text) OR (value IS NOT NULL)))
);
ALTER TABLE ONLY public.artifact ALTER COLUMN id SET DEFAULT nextval('public.artifact_id_seq'::regclass);
ALTER TABLE ONLY public.command ALTER COLUMN id SET DEFAULT nextval('public.command_id_seq'::regclass);
ALTER TABLE ONLY public.decision ALTER COLUMN id SET DEFAULT nextval('public.decision_id_seq'::regclass);
ALTER TABLE ONLY public.note ALTER COLUMN id SET DEFAULT nextval('public.note_id_seq'::regclass);
ALTER TABLE ONLY public.study ALTER COLUMN id SET DEFAULT nextval('public.study_id_seq'::regclass);
INSERT INTO public.alembic_version VALUES ('0001');
INSERT INTO public.attempt VALUES (1, 0, 0, 0, 1, 1795433241.721037, NULL, NULL, 0, '');
INSERT INTO public.attempt VALUES (1, 1, 0, 0, 1, 1795433241.721037, NULL, NULL, 0, '');
INSERT INTO public.attempt VALUES (1, 2, 0, 0, 1, 1795433241.721037, NULL, NULL, 0, '');
INSERT INTO public.attempt VALUES (1, 3, 0, 0, 1, 1795433241.721037, 1795433241.8041396, 'oom', 0, '');
INSERT INTO public.decision VALUES (1, 1, 'zoom', 'lr', 'r', '{"old":[0,1]}', 0, 1795433241.8041396);
INSERT INTO public.environment VALUES ('b3f7f782963ad77d993681cc3c3c9fcde1e2c660466712769913b66f7fa6dcd1', '{"device": "cpu", "git_commit": "", "git_dirty": false, "machine": "x86", "packages": {"numpy": "2"}, "python": "3.11", "torch": "2.13"}');
INSERT INTO public.layers VALUES (1, 0, 0, 0, 1, 0, '{"fc":[0.5,2.0]}');
INSERT INTO public.metric VALUES (1, 0, 0, 0, 1, 0, 'loss', 1);
INSERT INTO public.metric VALUES (1, 0, 0, 0, 1, 1, 'loss', 0.5);
INSERT INTO public.note VALUES (1, 1, 'note', 'digits/0', 'kept', 1795433241.895996);
INSERT INTO public.run VALUES (1, 0, 0, 0, 0, 'search', 'complete', 1, 0.5, NULL, NULL, '', '', 1795433241.721037, 1795433241.8041396, 0, '', '{}', 'b3f7f782963ad77d993681cc3c3c9fcde1e2c660466712769913b66f7fa6dcd1');
INSERT INTO public.run VALUES (1, 1, 0, 0, 0, 'search', 'diverged', 1, NULL, NULL, NULL, 'nan loss at epoch 0', '', 1795433241.721037, 1795433241.8041396, 0, '', '{}', NULL);
INSERT INTO public.run VALUES (1, 2, 0, 0, 0, 'search', 'failed', 1, NULL, NULL, NULL, 'exception', 'Traceback', 1795433241.721037, 1795433241.8041396, 0, '', '{}', NULL);
INSERT INTO public.run VALUES (1, 3, 0, 0, 0, 'search', 'queued', 1, NULL, NULL, NULL, '', '', 1795433241.721037, NULL, 0, '', '{}', NULL);
INSERT INTO public.sealed VALUES (1, 0, 0, 0, 1, -1, 'test_acc', 0.9);
INSERT INTO public.study VALUES (1, 'digits', '{"direction":"minimize","seeds":[0,1],"tags":["first"],"n_trials":4}', 'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff', 'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', '/home/ann/digits.yaml', 'name: digits
', 'stopped', 'by hpsearch stop', 2, 1, NULL, NULL, NULL, NULL, 0, 3, 3, 0, 1795433241.6280031, 1795433241.955018);
INSERT INTO public.trial VALUES (1, 0, '{"lr":0.1,"act":"relu"}', 'complete', 0.5, NULL, false, 0, 0, 1);
INSERT INTO public.trial VALUES (1, 1, '{"lr":0.05,"act":"relu"}', 'diverged', NULL, NULL, false, 0, 0, 2);
INSERT INTO public.trial VALUES (1, 2, '{"lr":0.03333333333333333,"act":"relu"}', 'failed', NULL, NULL, false, 0, 0, 3);
INSERT INTO public.trial VALUES (1, 3, '{"lr":0.025,"act":"relu"}', 'queued', NULL, NULL, false, 0, 0, NULL);
SELECT pg_catalog.setval('public.artifact_id_seq', 1, false);
SELECT pg_catalog.setval('public.command_id_seq', 1, false);
SELECT pg_catalog.setval('public.decision_id_seq', 1, true);
SELECT pg_catalog.setval('public.note_id_seq', 1, true);
SELECT pg_catalog.setval('public.study_id_seq', 1, true);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.artifact
    ADD CONSTRAINT artifact_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.attempt
    ADD CONSTRAINT attempt_pkey PRIMARY KEY (study, trial, seed, repeat, attempt);
ALTER TABLE ONLY public.command
    ADD CONSTRAINT command_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.decision
    ADD CONSTRAINT decision_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.environment
    ADD CONSTRAINT environment_pkey PRIMARY KEY (sha256);
ALTER TABLE ONLY public.layers
    ADD CONSTRAINT layers_pkey PRIMARY KEY (study, trial, seed, repeat, attempt, epoch);
ALTER TABLE ONLY public.metric
    ADD CONSTRAINT metric_pkey PRIMARY KEY (study, trial, seed, repeat, attempt, epoch, name);
ALTER TABLE ONLY public.note
    ADD CONSTRAINT note_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.run
    ADD CONSTRAINT run_pkey PRIMARY KEY (study, trial, seed, repeat);
ALTER TABLE ONLY public.sealed
    ADD CONSTRAINT sealed_pkey PRIMARY KEY (study, trial, seed, repeat, attempt, epoch, name);
ALTER TABLE ONLY public.study
    ADD CONSTRAINT study_name_key UNIQUE (name);
ALTER TABLE ONLY public.study
    ADD CONSTRAINT study_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.trial
    ADD CONSTRAINT trial_pkey PRIMARY KEY (study, number);
ALTER TABLE ONLY public.trial
    ADD CONSTRAINT trial_tell_seq UNIQUE (study, tell_seq);
CREATE INDEX artifact_of_study ON public.artifact USING btree (study, id);
CREATE INDEX command_of_study ON public.command USING btree (study, id);
CREATE INDEX decision_of_study ON public.decision USING btree (study, id);
CREATE INDEX note_of_study ON public.note USING btree (study, id);
ALTER TABLE ONLY public.artifact
    ADD CONSTRAINT artifact_study_fkey FOREIGN KEY (study) REFERENCES public.study(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.attempt
    ADD CONSTRAINT attempt_study_trial_seed_repeat_fkey FOREIGN KEY (study, trial, seed, repeat) REFERENCES public.run(study, trial, seed, repeat) ON DELETE CASCADE;
ALTER TABLE ONLY public.command
    ADD CONSTRAINT command_study_fkey FOREIGN KEY (study) REFERENCES public.study(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.decision
    ADD CONSTRAINT decision_study_fkey FOREIGN KEY (study) REFERENCES public.study(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.layers
    ADD CONSTRAINT layers_study_trial_seed_repeat_fkey FOREIGN KEY (study, trial, seed, repeat) REFERENCES public.run(study, trial, seed, repeat) ON DELETE CASCADE;
ALTER TABLE ONLY public.metric
    ADD CONSTRAINT metric_study_trial_seed_repeat_fkey FOREIGN KEY (study, trial, seed, repeat) REFERENCES public.run(study, trial, seed, repeat) ON DELETE CASCADE;
ALTER TABLE ONLY public.note
    ADD CONSTRAINT note_study_fkey FOREIGN KEY (study) REFERENCES public.study(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.run
    ADD CONSTRAINT run_environment_fkey FOREIGN KEY (environment) REFERENCES public.environment(sha256);
ALTER TABLE ONLY public.run
    ADD CONSTRAINT run_study_trial_fkey FOREIGN KEY (study, trial) REFERENCES public.trial(study, number) ON DELETE CASCADE;
ALTER TABLE ONLY public.sealed
    ADD CONSTRAINT sealed_study_trial_seed_repeat_fkey FOREIGN KEY (study, trial, seed, repeat) REFERENCES public.run(study, trial, seed, repeat) ON DELETE CASCADE;
ALTER TABLE ONLY public.trial
    ADD CONSTRAINT trial_study_fkey FOREIGN KEY (study) REFERENCES public.study(id) ON DELETE CASCADE;
